//! Sessions that clients may resume at a server.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

use super::Reloadable;

/// A bounded session cache that is emptied when the server's credentials are replaced.
///
/// A resumed session shows no certificate. If sessions outlived the certificate they were made under, a client could go
/// on without ever seeing its successor.
#[derive(Debug)]
pub(super) struct Sessions {
    credentials: Reloadable,
    size: usize,
    cache: RwLock<Cache>,
}

#[derive(Debug)]
struct Cache {
    generation: u64,
    sessions: Arc<ServerSessionMemoryCache>,
}

impl Sessions {
    /// Room for about `size` sessions made under `credentials`.
    pub(super) fn new(credentials: Reloadable, size: usize) -> Self {
        let cache = RwLock::new(Cache {
            generation: credentials.generation(),
            sessions: ServerSessionMemoryCache::new(size),
        });
        Self {
            credentials,
            size,
            cache,
        }
    }

    fn current(&self) -> Arc<ServerSessionMemoryCache> {
        let generation = self.credentials.generation();
        {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            if cache.generation == generation {
                return cache.sessions.clone();
            }
        }
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.generation != generation {
            *cache = Cache {
                generation,
                sessions: ServerSessionMemoryCache::new(self.size),
            };
        }
        cache.sessions.clone()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.current().put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.current().get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.current().take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
