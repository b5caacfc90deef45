//! Who the first process is: names looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! The rules are runc's and Docker's: a number is always an id, whether or not it is listed; a listed user
//! brings its group, its home and the groups that name it; a group given explicitly stands alone.

use std::path::Path;

use husk_images::Stack;

use super::Error;

/// A user with groups and home directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Home directory.
    pub home: Vec<u8>,
}

/// Where the two files come from; absent files are empty.
pub trait Files {
    /// Contents of `/etc/passwd`.
    fn passwd(&self) -> Result<String, Error>;
    /// Contents of `/etc/group`.
    fn group(&self) -> Result<String, Error>;
}

/// More than any account file of an image.
const LIMIT_BYTES: u64 = 16 << 20;

/// Symbolic links are followed inside the image only.
impl Files for Stack {
    fn passwd(&self) -> Result<String, Error> {
        account_file(self, "/etc/passwd")
    }

    fn group(&self) -> Result<String, Error> {
        account_file(self, "/etc/group")
    }
}

fn account_file(root: &Stack, path: &'static str) -> Result<String, Error> {
    let bytes = root.read(Path::new(path), LIMIT_BYTES);
    let bytes = bytes.map_err(|source| Error::ImageFile { path, source })?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

/// A line of `/etc/passwd`, as far as it counts.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let (_comment, home) = (fields.next(), fields.next().unwrap_or(""));
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = fields.next()?.parse().ok()?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    })
}

/// An id typed as a number; ids above `i32::MAX` are no ids (runc's rule).
fn number(text: &str) -> Option<Result<u32, ()>> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| {
        text.parse::<i32>()
            .map_err(drop)
            .and_then(|id| u32::try_from(id).map_err(drop))
    })
}

/// Finds who `text` (`USER[:GROUP]`; empty is root) is.
pub fn resolve(text: &str, files: &dyn Files) -> Result<User, Error> {
    let form = || Error::UserForm(text.to_owned());
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if group.contains(':') || text.contains('\0') || (user.is_empty() && !text.is_empty()) {
        return Err(form());
    }
    let user = if user.is_empty() { "0" } else { user };
    let uid = number(user).transpose().map_err(|()| form())?;
    let passwd = files.passwd()?;
    let account = accounts(&passwd).find(|account| match uid {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    let mut result = match (&account, uid) {
        (Some(account), _) => User {
            uid: account.uid,
            gid: account.gid,
            additional_gids: Vec::new(),
            home: account.home.as_bytes().to_vec(),
        },
        (None, Some(uid)) => User {
            uid,
            gid: 0,
            additional_gids: Vec::new(),
            home: Vec::new(),
        },
        (None, None) => return Err(Error::UnknownUser(user.to_owned())),
    };
    if result.home.is_empty() {
        result.home = b"/".to_vec();
    }

    let group_file = files.group()?;
    if group.is_empty() {
        if let Some(account) = &account {
            result.additional_gids = groups(&group_file)
                .filter(|group| group.members.split(',').any(|name| name == account.name))
                .map(|group| group.gid)
                .collect();
        }
    } else {
        result.gid = match number(group) {
            Some(gid) => gid.map_err(|()| form())?,
            None => {
                groups(&group_file)
                    .find(|entry| entry.name == group)
                    .ok_or_else(|| Error::UnknownGroup(group.to_owned()))?
                    .gid
            }
        };
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(&'static str, &'static str);

    impl Files for Text {
        fn passwd(&self) -> Result<String, Error> {
            Ok(self.0.to_owned())
        }
        fn group(&self) -> Result<String, Error> {
            Ok(self.1.to_owned())
        }
    }

    const FILES: Text = Text(
        "root:x:0:0:root:/root:/bin/sh\nbad line\nbin:x:2:2::/bin:\nweb:x:33:34:w:/srv:/bin/false\n",
        "root:x:0:\nadm:x:4:web,root\nwww:x:34:\nmail:x:8:web\n",
    );

    fn user(uid: u32, gid: u32, additional_gids: &[u32], home: &str) -> User {
        User {
            uid,
            gid,
            additional_gids: additional_gids.to_vec(),
            home: home.as_bytes().to_vec(),
        }
    }

    #[test]
    fn names_and_numbers() {
        let table = [
            ("", user(0, 0, &[4], "/root")),
            ("root", user(0, 0, &[4], "/root")),
            ("web", user(33, 34, &[4, 8], "/srv")),
            ("33", user(33, 34, &[4, 8], "/srv")),
            ("web:www", user(33, 34, &[], "/srv")),
            ("web:mail", user(33, 8, &[], "/srv")),
            ("web:99", user(33, 99, &[], "/srv")),
            ("1000", user(1000, 0, &[], "/")),
            ("1000:1001", user(1000, 1001, &[], "/")),
            ("web:", user(33, 34, &[4, 8], "/srv")),
        ];
        for (text, expected) in table {
            assert_eq!(resolve(text, &FILES).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn strangers() {
        assert!(matches!(
            resolve("nobody", &FILES),
            Err(Error::UnknownUser(_))
        ));
        assert!(matches!(
            resolve("web:x", &FILES),
            Err(Error::UnknownGroup(_))
        ));
        for text in [":1", "1:2:3", "4294967296", "2147483648", "0:99999999999"] {
            assert!(
                matches!(resolve(text, &FILES), Err(Error::UserForm(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn links_stay_in_the_image() {
        let root = std::env::temp_dir().join(format!("husk-users-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::os::unix::fs::symlink("/real", root.join("etc/passwd")).unwrap();
        std::fs::write(root.join("real"), "me:x:7:7::/me:\n").unwrap();
        let files = Stack::open(std::slice::from_ref(&root)).unwrap();
        assert_eq!(resolve("me", &files).unwrap(), user(7, 7, &[], "/me"));
        std::fs::remove_file(root.join("real")).unwrap();
        assert!(matches!(resolve("me", &files), Err(Error::UnknownUser(_))));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
