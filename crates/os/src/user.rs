//! Users and groups by name and number.
//!
//! Read from `/etc/passwd` and `/etc/group` directly: the binary is static, so
//! the C library's name service is not there. Directory services (LDAP, SSSD)
//! are therefore not asked; their users go by number.

use std::path::{Path, PathBuf};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// setgroups(2) refuses more (NGROUPS_MAX); further ones are left out.
const MAX_GROUPS: usize = 65_536;

/// A line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; may be empty.
    pub shell: String,
}

/// A user or group that is not known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such login name.
    #[error("no user {0} in {PASSWD}; give its number instead")]
    NoUser(String),
    /// No such group name.
    #[error("no group {0} in {GROUP}; give its number instead")]
    NoGroup(String),
}

/// Returns the user of a login name or a number.
///
/// # Errors
/// [`UserError::NoUser`] for an unknown name. An unknown number is a user
/// without name and home whose group has the same number.
pub fn user(name_or_uid: &str) -> Result<User, UserError> {
    let known = parse_passwd(&read(PASSWD)).find(|user| user.name == name_or_uid);
    if let Some(user) = known {
        return Ok(user);
    }
    let uid = name_or_uid
        .parse()
        .map_err(|_| UserError::NoUser(name_or_uid.to_owned()))?;
    Ok(user_of_uid(uid).unwrap_or_else(|| User {
        name: uid.to_string(),
        uid,
        gid: uid,
        home: PathBuf::from("/"),
        shell: String::new(),
    }))
}

/// Returns the group id of a group name or a number.
///
/// # Errors
/// [`UserError::NoGroup`] for an unknown name.
pub fn group(name_or_gid: &str) -> Result<u32, UserError> {
    let text = read(GROUP);
    let known = parse_group(&text).find(|group| group.name == name_or_gid);
    match known {
        Some(group) => Ok(group.gid),
        None => name_or_gid
            .parse()
            .map_err(|_| UserError::NoGroup(name_or_gid.to_owned())),
    }
}

/// Returns the user with this id, if `/etc/passwd` has one.
pub fn user_of_uid(uid: u32) -> Option<User> {
    parse_passwd(&read(PASSWD)).find(|user| user.uid == uid)
}

/// Returns the login name of a uid, or its number as text.
pub fn name_of_uid(uid: u32) -> String {
    user_of_uid(uid).map_or_else(|| uid.to_string(), |user| user.name)
}

/// Returns the home directory of a uid.
pub fn home_of_uid(uid: u32) -> Option<PathBuf> {
    user_of_uid(uid).map(|user| user.home)
}

/// Returns the effective user id of the calling process.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns `gid` and every group that lists the user, as initgroups(3) would.
pub fn supplementary_groups(uid: u32, gid: u32) -> Vec<u32> {
    let mut groups = vec![gid];
    if let Some(user) = user_of_uid(uid) {
        groups.extend(memberships(&read(GROUP), &user.name));
    }
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(MAX_GROUPS);
    groups
}

fn memberships(text: &str, name: &str) -> Vec<u32> {
    parse_group(text)
        .filter(|group| group.members.split(',').any(|member| member == name))
        .map(|group| group.gid)
        .collect()
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Lines that do not fit passwd(5) are skipped, as getpwent(3) skips them.
fn parse_passwd(text: &str) -> impl Iterator<Item = User> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        let shell = fields.next().unwrap_or_default().to_owned();
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
            home: Path::new(home).into(),
            shell,
        })
    })
}

fn parse_group(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

/// A container may have neither file: then nobody has a name.
fn read(path: &str) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\n\nbroken:x:y:0::/:\n\
                        node:x:1000:1001:Node:/home/node:/bin/bash\nshort:x:5\n";

    #[test]
    fn passwd_lines_parse_and_broken_ones_are_skipped() {
        let users: Vec<User> = parse_passwd(TEXT).collect();
        assert_eq!(users.len(), 2);
        assert_eq!(
            (users[1].name.as_str(), users[1].uid, users[1].gid),
            ("node", 1000, 1001)
        );
        assert_eq!(users[1].home, Path::new("/home/node"));
        assert_eq!(users[1].shell, "/bin/bash");
    }

    #[test]
    fn groups_are_those_that_list_the_name_exactly() {
        let text = "root:x:0:\nwww:x:33:node,other\nx:x:34:nodes\ndocker:x:99:node";
        assert_eq!(memberships(text, "node"), [33, 99]);
    }

    #[test]
    fn root_is_found_by_name_and_number() {
        assert_eq!(user("root").unwrap().uid, 0);
        assert_eq!(user("0").unwrap().name, "root");
        assert_eq!(group("root").unwrap(), 0);
        assert_eq!(name_of_uid(0), "root");
        assert!(supplementary_groups(0, 0).contains(&0));
    }

    #[test]
    fn an_unknown_name_is_an_error_and_an_unknown_number_is_not() {
        assert_eq!(
            user("no-such-user"),
            Err(UserError::NoUser("no-such-user".to_owned()))
        );
        assert_eq!(
            group("no-such"),
            Err(UserError::NoGroup("no-such".to_owned()))
        );
        assert_eq!(user("54321").unwrap().gid, 54321);
    }
}
