//! Which program runs, with which arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::Error;

/// Entry point and command of the image and of the user, put together as Docker does: `--entrypoint`
/// replaces the image's entry point and drops its command; a typed command replaces the image's.
pub fn arguments(
    image_entrypoint: &[String],
    image_cmd: &[String],
    entrypoint: Option<&OsStr>,
    command: &[OsString],
) -> Result<Vec<Vec<u8>>, Error> {
    let of_image = |words: &[String]| -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    };
    let typed = command.iter().map(|word| word.as_bytes().to_vec());
    let mut args = match entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.as_bytes().to_vec()],
        None => of_image(image_entrypoint),
    };
    if command.is_empty() && entrypoint.is_none() {
        args.extend(of_image(image_cmd));
    } else {
        args.extend(typed);
    }
    if args.first().is_none_or(Vec::is_empty) {
        return Err(Error::NoCommand);
    }
    if let Some(arg) = args.iter().find(|arg| arg.contains(&0)) {
        return Err(Error::Nul {
            what: "the argument",
            text: String::from_utf8_lossy(arg).into_owned(),
        });
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_together(
        image: (&[&str], &[&str]),
        entrypoint: Option<&str>,
        command: &[&str],
    ) -> Result<Vec<String>, Error> {
        let owned = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let args = arguments(
            &owned(image.0),
            &owned(image.1),
            entrypoint.map(OsStr::new),
            &command,
        )?;
        Ok(args
            .into_iter()
            .map(|arg| String::from_utf8(arg).unwrap())
            .collect())
    }

    #[test]
    fn as_docker_puts_them_together() {
        let image: (&[&str], &[&str]) = (&["/init"], &["a", "b"]);
        assert_eq!(put_together(image, None, &[]).unwrap(), ["/init", "a", "b"]);
        assert_eq!(put_together(image, None, &["c"]).unwrap(), ["/init", "c"]);
        assert_eq!(put_together(image, Some("/e"), &[]).unwrap(), ["/e"]);
        assert_eq!(
            put_together(image, Some("/e"), &["c"]).unwrap(),
            ["/e", "c"]
        );
        assert_eq!(put_together(image, Some(""), &["c"]).unwrap(), ["c"]);
    }

    #[test]
    fn nothing_to_run() {
        assert!(matches!(
            put_together((&[], &[]), None, &[]),
            Err(Error::NoCommand)
        ));
        assert!(matches!(
            put_together((&["/init"], &["a"]), Some(""), &[]),
            Err(Error::NoCommand)
        ));
        assert!(matches!(
            put_together((&[], &[]), None, &[""]),
            Err(Error::NoCommand)
        ));
        assert!(matches!(
            put_together((&[], &["a\0b"]), None, &[]),
            Err(Error::Nul { .. })
        ));
    }
}
