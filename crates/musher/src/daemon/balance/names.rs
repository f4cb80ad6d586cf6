//! Names of what is kept for a later daemon.
//!
//! `listen/<namespace>/<app>/<slot>/<backlog>/<order>/<key>`, without the order
//! if it is not known, and
//! `ticket/<namespace>/<app>/<key>`; `/` and `%` inside a part are written
//! `%2F` and `%25`. The name carries everything a socket does not know itself.

use musher_core::cluster::message::{Endpoint, Key};
use musher_core::supervisor::action::AppKey;

/// The longest name the keeper takes, bytes.
pub(crate) const NAME_LIMIT: usize = 200;

/// What the name of a listening socket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerName {
    pub(crate) app: AppKey,
    pub(crate) slot: u32,
    pub(crate) backlog: i32,
    /// Its index among the sockets of its address.
    pub(crate) order: Option<u32>,
    pub(crate) endpoint: Endpoint,
}

impl ListenerName {
    /// Returns the name, or `None` if it is too long to be kept: such a socket
    /// does not outlive the daemon.
    pub(crate) fn write(&self) -> Option<String> {
        let order = self.order.map(|order| format!("{order}/"));
        let order = order.unwrap_or_default();
        let name = format!(
            "listen/{}/{}/{}/{}/{}{}",
            escape(&self.app.namespace),
            escape(&self.app.name),
            self.slot,
            self.backlog,
            order,
            escape(&self.endpoint.key().0),
        );
        (name.len() <= NAME_LIMIT).then_some(name)
    }

    /// Returns what a name says; `None` if it is not one of a listening socket.
    pub(crate) fn parse(name: &str) -> Option<ListenerName> {
        let parts: Vec<&str> = name.split('/').collect();
        let (["listen", namespace, app, slot, backlog, order @ .., key], true) =
            (&parts[..], parts.len() < 8)
        else {
            return None;
        };
        Some(ListenerName {
            app: AppKey {
                namespace: unescape(namespace),
                name: unescape(app),
            },
            slot: slot.parse().ok()?,
            backlog: backlog.parse().ok()?,
            order: match order {
                [] => None,
                [order, ..] => Some(order.parse().ok()?),
            },
            endpoint: Endpoint::parse(&unescape(key))?,
        })
    }
}

/// Returns the name of TLS ticket keys.
pub(crate) fn write_ticket(app: &AppKey, key: &Key) -> String {
    format!(
        "ticket/{}/{}/{}",
        escape(&app.namespace),
        escape(&app.name),
        escape(&key.0)
    )
}

/// Returns what the name of TLS ticket keys says.
pub(crate) fn parse_ticket(name: &str) -> Option<(AppKey, Key)> {
    let parts: Vec<&str> = name.split('/').collect();
    let ["ticket", namespace, app, key] = parts[..] else {
        return None;
    };
    let app = AppKey {
        namespace: unescape(namespace),
        name: unescape(app),
    };
    Some((app, Key(unescape(key))))
}

pub(crate) fn escape(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

pub(crate) fn unescape(part: &str) -> String {
    part.replace("%2F", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_says_what_was_put_into_it(
            namespace in "[a-z/%2F]{0,10}",
            app in "[a-z/%25]{0,20}",
            slot in 0..1000u32,
            backlog in 1..5000i32,
            order in prop::option::of(0..1000u32),
            key in "(/[a-z%]{1,20}){1,4}:-1:-1:undefined|null:80:4:undefined|::1:0:6:undefined:3",
        ) {
            let app = AppKey { namespace, name: app };
            let endpoint = Endpoint::parse(&key).unwrap();
            let name = ListenerName { app: app.clone(), slot, backlog, order, endpoint };
            if let Some(text) = name.write() {
                prop_assert!(text.len() <= NAME_LIMIT);
                prop_assert_eq!(ListenerName::parse(&text), Some(name));
            }
            let ticket = write_ticket(&app, &Key(key.clone()));
            prop_assert_eq!(parse_ticket(&ticket), Some((app, Key(key))));
        }
    }
}
