//! Memory and cpu of running processes, read when somebody looks.

use super::children::Children;
use musher_core::id::Incarnation;
use musher_core::supervisor::Sample;
use musher_core::time::{Millis, Mono};
use std::collections::HashMap;

/// Two looks closer together than this reuse the older figures: a share of cpu
/// over a shorter span is noise (the kernel counts in ticks of 10 ms).
const SHORTEST_SPAN: Millis = Millis(100);

/// The previous look at each run.
#[derive(Default)]
pub(crate) struct Sampler {
    previous: HashMap<Incarnation, Look>,
}

#[derive(Clone, Copy)]
struct Look {
    at: Mono,
    cpu: Millis,
    percent: f64,
}

impl Sampler {
    /// Samples every living run.
    ///
    /// Cpu is the percentage of one core since the previous look at the run,
    /// rounded to one decimal; 0 at the first.
    pub(crate) fn sample(&mut self, children: &Children, now: Mono) -> Vec<Sample> {
        let mut looks = HashMap::with_capacity(self.previous.len());
        let mut samples = Vec::new();
        for (run, child) in children.iter() {
            // Gone since the last event: its exit is on the way.
            let Some(usage) = child.usage() else { continue };
            let look = look(self.previous.get(&run), usage.cpu, now);
            samples.push(Sample {
                run,
                memory_bytes: usage.rss_bytes,
                cpu_percent: look.percent,
            });
            looks.insert(run, look);
        }
        self.previous = looks;
        samples
    }
}

fn look(previous: Option<&Look>, cpu: Millis, now: Mono) -> Look {
    let Some(previous) = previous else {
        return Look {
            at: now,
            cpu,
            percent: 0.0,
        };
    };
    let span = now.since(previous.at);
    if span < SHORTEST_SPAN {
        return *previous;
    }
    let used = cpu.get().saturating_sub(previous.cpu.get());
    // Milliseconds fit a double exactly for 285,000 years.
    #[allow(clippy::cast_precision_loss)]
    let percent = used as f64 * 100.0 / span.get() as f64;
    Look {
        at: now,
        cpu,
        percent: (percent * 10.0).round() / 10.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_a_share_of_one_core_since_the_previous_look() {
        let first = look(None, Millis(500), Mono(1000));
        assert_eq!(first.percent, 0.0);
        let second = look(Some(&first), Millis(750), Mono(2000));
        assert_eq!(second.percent, 25.0);
    }

    #[test]
    fn a_hasty_second_look_keeps_the_figures() {
        let first = Look {
            at: Mono(1000),
            cpu: Millis(0),
            percent: 12.5,
        };
        let second = look(Some(&first), Millis(10), Mono(1001));
        assert_eq!(second.percent, 12.5);
        assert_eq!(second.at, Mono(1000));
    }
}
