//! Releases of a slot: which one serves, which one served before, and how to
//! go back.
//!
//! A release is what a run was started from and where that really was: with
//! release directories behind a symbolic link, the link is resolved anew at
//! each spawn, and going back pins the directory it pointed to before. Nothing
//! here starts or stops anything.

use super::process::{Process, Revision};
use crate::app::AppSpec;
use crate::app::description::{self, Defaults, RELEASE};
use serde_json::json;
use std::sync::Arc;

/// Books what serves as the release in force, if it differs from the last one.
pub fn note(p: &mut Process) {
    let Some(run) = &p.serving else { return };
    let Some(place) = run.place.clone() else {
        return;
    };
    let number = match &p.revision {
        Some(known) if known.place.as_ref() == Some(&place) && known.spec == run.spec => return,
        Some(known) => known.number.saturating_add(1),
        None => 1,
    };
    let current = Revision {
        number,
        spec: Arc::clone(&run.spec),
        place: Some(place),
    };
    let previous = p.revision.replace(current);
    if !planted!(PreviousForgotten) {
        p.previous = previous;
    }
}

/// Returns the app as it was in the release before, pinned to where that was;
/// `None` if there is none.
pub fn back(p: &Process, defaults: &Defaults) -> Option<Arc<AppSpec>> {
    p.previous
        .as_ref()
        .and_then(|revision| pinned(revision, defaults))
}

/// Returns the app of a release, pinned to where it was.
pub fn pinned(revision: &Revision, defaults: &Defaults) -> Option<Arc<AppSpec>> {
    let mut description = description::to_description(&revision.spec);
    if let Some(place) = &revision.place {
        let place = json!({"cwd": place.cwd, "script": place.script});
        description.insert(RELEASE.to_owned(), place);
    }
    // What was valid when it was started is valid still.
    description::spec(&description, defaults).ok().map(Arc::new)
}
