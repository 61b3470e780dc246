//! A set of texts that are looked up by their hash.
//!
//! Texts are equal only if they are the same byte by byte. All texts share one buffer, so a million account numbers take
//! about 40 MiB, and the set is dropped at once.

use std::{
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

use hashbrown::HashTable;

use super::value::lower;

/// Different texts.
#[derive(Debug, Default)]
pub(super) struct TextSet {
    buffer: String,
    /// The start and the length of each text.
    places: HashTable<(u32, u32)>,
    hashes: RandomState,
    /// A text that is not in lower case, once it was looked for.
    not_lower: OnceLock<Option<(u32, u32)>>,
}

impl TextSet {
    /// Adds a text, unless the set has it. Returns false if there is no room: all texts together have at most 4 GiB.
    pub fn insert(&mut self, text: &str) -> bool {
        if self.contains(text) {
            return true;
        }
        let (Ok(start), Ok(length)) = (u32::try_from(self.buffer.len()), u32::try_from(text.len())) else {
            return false;
        };
        self.buffer.push_str(text);
        let hash_of = |place: &(u32, u32)| self.hashes.hash_one(text_at(&self.buffer, *place));
        self.places.insert_unique(self.hashes.hash_one(text), (start, length), hash_of);
        true
    }

    pub fn contains(&self, text: &str) -> bool {
        let is_same = |place: &(u32, u32)| text_at(&self.buffer, *place) == text;
        self.places.find(self.hashes.hash_one(text), is_same).is_some()
    }

    /// Returns a text that is not in lower case, if there is one.
    pub fn not_lower(&self) -> Option<&str> {
        let is_other = |place: &(u32, u32)| {
            let text = text_at(&self.buffer, *place);
            match text.is_ascii() {
                true => text.bytes().any(|byte| byte.is_ascii_uppercase()),
                false => lower(text) != text,
            }
        };
        // The first one, so that the message is the same each time.
        let find = || self.places.iter().filter(|place| is_other(place)).min().copied();
        self.not_lower.get_or_init(find).map(|place| text_at(&self.buffer, place))
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }
}

fn text_at(buffer: &str, (start, length): (u32, u32)) -> &str {
    let range = usize::try_from(start).ok().zip(usize::try_from(length).ok());
    range.and_then(|(start, length)| buffer.get(start..start + length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_take_little_more_than_their_bytes() {
        let texts: Vec<String> = (0..200_000).map(|n| format!("DE{:020}", n * 7)).collect();
        let mut set = TextSet::default();
        assert!(texts.iter().chain(&texts).all(|text| set.insert(text)));
        assert_eq!(set.len(), texts.len());
        assert!(texts.iter().all(|text| set.contains(text)));
        assert!(!set.contains("") && !set.contains("DE00000000000000000001"));
        assert!(set.buffer.capacity() + set.places.allocation_size() < 10 << 20);
    }
}
