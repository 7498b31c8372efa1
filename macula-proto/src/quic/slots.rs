//! A slab whose handles carry a generation.

use super::ConnectionHandle;

/// Values behind generational handles: the handle of a removed value never finds its successor.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, value: T) -> ConnectionHandle {
        self.len += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                value: None,
            });
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.value = Some(value);
            generation = entry.generation;
        }
        ConnectionHandle { generation, index }
    }

    pub(super) fn get(&self, handle: ConnectionHandle) -> Option<&T> {
        self.entries
            .get(handle.index as usize)
            .filter(|entry| entry.generation == handle.generation)
            .and_then(|entry| entry.value.as_ref())
    }

    pub(super) fn get_mut(&mut self, handle: ConnectionHandle) -> Option<&mut T> {
        self.entries
            .get_mut(handle.index as usize)
            .filter(|entry| entry.generation == handle.generation)
            .and_then(|entry| entry.value.as_mut())
    }

    pub(super) fn remove(&mut self, handle: ConnectionHandle) -> Option<T> {
        let entry = self
            .entries
            .get_mut(handle.index as usize)
            .filter(|entry| entry.generation == handle.generation)?;
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(handle.index);
        self.len -= 1;
        Some(value)
    }

    /// Handles of all values, in order of their index.
    pub(super) fn handles(&self) -> impl Iterator<Item = ConnectionHandle> + '_ {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            entry.value.as_ref().map(|_| ConnectionHandle {
                generation: entry.generation,
                index: u32::try_from(index).unwrap_or(u32::MAX),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn a_stale_handle_finds_nothing() {
        let mut slots = Slots::new();
        let old = slots.insert("old");
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new");
        assert_eq!(new.index, old.index, "the place is used again");
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.get_mut(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&"new"));
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.handles().collect::<Vec<_>>(), [new]);
    }
}
