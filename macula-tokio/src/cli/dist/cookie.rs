//! Where a node's cookie comes from.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::args::DistNodeArgs;
use crate::cli::outcome::Failure;

/// Longest cookie: that of an atom, which it is in Erlang.
const LONGEST: usize = 255;

const VARIABLE: &str = "MACULA_COOKIE";
const FILE: &str = ".erlang.cookie";

pub(super) fn of(args: &DistNodeArgs) -> Result<String, Failure> {
    let given = Given {
        text: args.cookie.clone(),
        file: args.cookie_file.clone(),
        variable: env::var_os(VARIABLE),
        home: env::home_dir(),
    };
    given.find()
}

/// All the places, the first of which counts.
#[derive(Debug, Default)]
struct Given {
    text: Option<String>,
    file: Option<PathBuf>,
    variable: Option<OsString>,
    home: Option<PathBuf>,
}

impl Given {
    fn find(self) -> Result<String, Failure> {
        if let Some(text) = self.text {
            return check(&text).map_err(|why| Failure::Usage(format!("--cookie: {why}")));
        }
        if let Some(path) = self.file {
            return read(&path);
        }
        if let Some(text) = self.variable {
            let text = text.to_str().ok_or("a cookie is text".to_owned()).and_then(check);
            return text.map_err(|why| Failure::Usage(format!("{VARIABLE}: {why}")));
        }
        match self.home.map(|home| home.join(FILE)) {
            Some(path) if path.exists() => read(&path),
            _ => Err(Failure::Usage(format!(
                "a node needs the cookie of its cluster: --cookie-file, {VARIABLE} in the environment, or ~/{FILE}"
            ))),
        }
    }
}

fn check(text: &str) -> Result<String, String> {
    let odd = |c: char| !matches!(c, ' '..='~');
    match text.len() {
        0 => Err("a cookie has at least one character".to_owned()),
        length if length > LONGEST => Err(format!("a cookie has at most {LONGEST} characters")),
        // Not shown: it is a secret.
        _ if text.contains(odd) => Err("a cookie is of printable ASCII characters".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// A cookie in a file, with or without an end of line behind it.
fn read(path: &Path) -> Result<String, Failure> {
    let failed = |why: String| Failure::failed("cookie", format_args!("{}: {why}", path.display()));
    let file = fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let about = file.metadata().map_err(|error| failed(error.to_string()))?;
    if about.is_file() && is_open_to_others(&about) {
        let why = "others than its owner may read the cookie in it; `chmod 400` keeps them out";
        return Err(failed(why.to_owned()));
    }
    let mut bytes = Vec::new();
    // Room for an end of line, and for one character too many.
    let most = LONGEST as u64 + 3;
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("a cookie is text".to_owned()))?;
    check(text.trim_end_matches(['\n', '\r'])).map_err(failed)
}

#[cfg(unix)]
fn is_open_to_others(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    about.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        #[cfg(not(unix))]
        let _ = mode;
        path
    }

    #[test]
    fn the_first_place_counts() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_owned();
        let given = |text: Option<&str>, file: Option<PathBuf>, variable: Option<&str>| {
            let home = Some(home.clone());
            let (text, variable) = (text.map(str::to_owned), variable.map(OsString::from));
            Given {
                text,
                file,
                variable,
                home,
            }
            .find()
        };
        let missing = given(None, None, None).unwrap_err();
        assert_eq!(missing.kind(), "usage");
        assert!(missing.to_string().contains("~/.erlang.cookie"), "{missing}");
        file(&home, FILE, "HOME", 0o400);
        let own = || Some(file(&home, "own", "FILE\n", 0o600));
        assert_eq!(given(None, None, None).as_deref(), Ok("HOME"));
        assert_eq!(given(None, None, Some("ENV")).as_deref(), Ok("ENV"));
        assert_eq!(given(None, own(), Some("ENV")).as_deref(), Ok("FILE"));
        assert_eq!(given(Some("TEXT"), None, Some("ENV")).as_deref(), Ok("TEXT"));
        for (text, variable, why) in [
            (Some(""), None, "--cookie: a cookie has at least one"),
            (None, Some("\u{e9}"), "MACULA_COOKIE: a cookie is of printable ASCII"),
            (None, Some(&*"x".repeat(256)), "MACULA_COOKIE: a cookie has at most 255"),
        ] {
            let failure = given(text, None, variable).unwrap_err();
            assert!(
                failure.kind() == "usage" && failure.to_string().contains(why),
                "{failure}"
            );
        }
    }

    #[test]
    fn files_are_read_as_erlang_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str, mode: u32| read(&file(directory.path(), name, text, mode));
        assert_eq!(read("a", "ABC", 0o400).as_deref(), Ok("ABC"));
        assert_eq!(read("b", "ABC\r\n\n", 0o600).as_deref(), Ok("ABC"));
        let longest = "x".repeat(255);
        assert_eq!(read("c", &format!("{longest}\r\n"), 0o400).as_deref(), Ok(&*longest));
        for (name, text, why) in [
            ("d", "", "d: a cookie has at least one"),
            ("e", "\n", "e: a cookie has at least one"),
            ("f", &*"x".repeat(10_000), "f: a cookie has at most 255"),
            ("g", "A\tB", "g: a cookie is of printable ASCII"),
        ] {
            let failure = read(name, text, 0o400).unwrap_err();
            assert!(
                failure.kind() == "cookie" && failure.to_string().contains(why),
                "{failure}"
            );
        }
        let missing = super::read(&directory.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none: "), "{missing}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o440, 0o404, 0o644, 0o620] {
            let failure = read(&file(directory.path(), "cookie", "ABC", mode)).unwrap_err();
            assert!(failure.to_string().contains("chmod 400"), "{failure}");
            fs::remove_file(directory.path().join("cookie")).unwrap();
        }
    }
}
