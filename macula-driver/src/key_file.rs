//! Key files on disk: [`load`], [`store`], and whether one is private.
//!
//! The bytes are those of [`macula_proto::identity::key_file`], 78 of them, the same that deployed nodes read and write. A file
//! belongs to its owner alone (mode 0600 where there are modes), and comes to be in one step: nobody ever sees a part of it.
//!
//! ```
//! use macula_driver::{entropy, key_file::{self, Existing}};
//! use macula_proto::{Rng, identity::Identity};
//!
//! # fn main() -> std::io::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! let path = directory.path().join("node.key");
//! let identity = Identity::generate(&mut Rng::from_entropy(entropy()?));
//! key_file::store(&path, &identity, Existing::Keep)?;
//! assert_eq!(key_file::load(&path)?, identity);
//! # Ok(())
//! # }
//! ```

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use macula_proto::identity::{Identity, key_file};
use zeroize::Zeroizing;

/// Attempts to find a temporary name that nobody has.
const NAMES: u32 = 8;

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// It stays, and the new one is not stored.
    #[default]
    Keep,
    /// It is replaced, and its key lost.
    Replace,
}

/// The identity in a key file.
///
/// A file that others than its owner may read or write is taken all the same, with a warning to the log; see [`is_private`].
/// No more than the length of a key file is ever read, and what was read is wiped from memory.
///
/// # Errors
/// Those of reading a file, and [`io::ErrorKind::InvalidData`] with a
/// [`KeyFileError`](macula_proto::identity::key_file::KeyFileError) for a file that is no key file, or a damaged one.
pub fn load(path: impl AsRef<Path>) -> io::Result<Identity> {
    let path = path.as_ref();
    let file = File::open(path)?;
    if !private(&file.metadata()?) {
        tracing::warn!(path = %path.display(), "others than its owner can get at this key file; its mode should be 0600");
    }
    // One byte more, to see that a file is too long; all of it set aside at once, because growing leaves copies behind.
    let most = key_file::LENGTH + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most * 2));
    file.take(most as u64).read_to_end(&mut bytes)?;
    key_file::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether a file can be read and written by nobody but its owner. Where files have no modes the answer is always yes.
///
/// # Errors
/// Those of looking at a file.
pub fn is_private(path: impl AsRef<Path>) -> io::Result<bool> {
    fs::metadata(path).map(|metadata| private(&metadata))
}

#[cfg(unix)]
fn private(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    metadata.permissions().mode() & 0o077 == 0
}

#[cfg(not(unix))]
fn private(_metadata: &fs::Metadata) -> bool {
    true
}

/// Stores the key file of an identity, readable and writable by its owner alone.
///
/// It is written to a temporary name in the same directory, flushed to the disk, and only then gets its name; whatever goes
/// wrong, a file of this name is either as it was or complete.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if something has this name and is to be kept, and those of writing a file.
pub fn store(path: impl AsRef<Path>, identity: &Identity, existing: Existing) -> io::Result<()> {
    let path = path.as_ref();
    if existing == Existing::Keep && fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let (mut file, temporary) = Temporary::beside(path)?;
    file.write_all(&key_file::encode(identity))?;
    file.sync_all()?;
    drop(file);
    match existing {
        Existing::Replace => fs::rename(&temporary.0, path)?,
        Existing::Keep => name_new(&temporary.0, path)?,
    }
    drop(temporary);
    sync_directory(directory_of(path));
    Ok(())
}

/// Gives a file a name that nothing else has. Renaming would replace what came to have it in the meantime; a link does not.
fn name_new(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // A file system without links: the name is taken with an empty file, which is then replaced.
            private_options().open(path)?;
            fs::rename(temporary, path).inspect_err(|_| drop(fs::remove_file(path)))
        }
        outcome => outcome,
    }
}

/// A file under a name of its own, which is gone when this is dropped.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> io::Result<(File, Self)> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a path without a file name",
            ));
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let [a, b, c, d, e, f, g, h, ..] = crate::entropy()?;
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{:016x}.tmp", u64::from_ne_bytes([a, b, c, d, e, f, g, h])));
            let temporary = directory_of(path).join(hidden);
            match private_options().open(&temporary) {
                Ok(file) => return Ok((file, Self(temporary))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < NAMES => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing of this name any more.
        let _ = fs::remove_file(&self.0);
    }
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a new name last. The file is whole without it, so a system that cannot do this is no failure.
fn sync_directory(directory: &Path) {
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
}
