//! Finds the word that somebody probably meant.
//!
//! Must not know: what the words name.

/// The candidate nearest to `word`, if one is near enough to be a typing mistake.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let (distance, best) = candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    let allowed = (word.chars().count().max(best.chars().count()) / 3).max(1);
    (distance <= allowed).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgives_typing_mistakes_and_nothing_more() {
        let words = ["batch_rows", "batch_interval", "queue_rows"];
        assert_eq!(nearest("batchrows", words), Some("batch_rows"));
        assert_eq!(nearest("BATCH_ROW", words), Some("batch_rows"));
        assert_eq!(nearest("qeue_rows", words), Some("queue_rows"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("x", []), None);
    }
}
