//! The state that the history of an account keeps for the features of a rule set. Features that need the same state share
//! it.

use super::feature::{Aggregate, Feature};

/// The layout of every history of one rule set.
#[derive(Debug, Default)]
pub(super) struct HistoryLayout {
    /// The different widths of the windows.
    pub widths: Vec<WindowWidth>,
    /// The different sets of texts that features count.
    pub texts: Vec<CountedTexts>,
    /// The parts that each feature uses, in the order of the features.
    pub parts: Vec<FeatureParts>,
}

/// A width that at least one feature has.
#[derive(Debug)]
pub(super) struct WindowWidth {
    pub micros: i64,
    /// The indexes of the features whose state changes with each row that leaves.
    pub features: Vec<usize>,
}

/// Texts that are counted for at least one feature.
#[derive(Debug)]
pub(super) struct CountedTexts {
    /// The index of the text in the list of texts that the rule set tracks.
    pub nth: usize,
    /// The index of a feature whose filter decides which rows count. Features that share the texts have the same filter.
    pub feature: usize,
    /// The indexes of the widths in which the texts are counted.
    pub widths: Vec<usize>,
}

/// The parts of a history that one feature uses, by index.
#[derive(Debug, Clone, Copy)]
pub(super) struct FeatureParts {
    /// None: the whole history.
    pub width: Option<usize>,
    /// None: the feature counts no texts.
    pub texts: Option<usize>,
}

impl HistoryLayout {
    pub fn new(features: &[Feature]) -> Self {
        let mut layout = Self::default();
        for (index, feature) in features.iter().enumerate() {
            let width = feature.window.map(|micros| layout.width(micros));
            let texts = match feature.aggregate {
                Aggregate::Distinct(nth) => Some(layout.counted(nth, index, features, width)),
                _ => None,
            };
            if texts.is_none() && feature.aggregate != Aggregate::SecondsSinceLast {
                let width = width.and_then(|width| layout.widths.get_mut(width));
                width.into_iter().for_each(|width| width.features.push(index));
            }
            layout.parts.push(FeatureParts { width, texts });
        }
        layout
    }

    fn width(&mut self, micros: i64) -> usize {
        self.widths.iter().position(|known| known.micros == micros).unwrap_or_else(|| {
            self.widths.push(WindowWidth { micros, features: Vec::new() });
            self.widths.len() - 1
        })
    }

    fn counted(&mut self, nth: usize, index: usize, features: &[Feature], width: Option<usize>) -> usize {
        let is_same = |known: &CountedTexts| {
            let (one, other) = (features.get(known.feature), features.get(index));
            known.nth == nth && one.zip(other).is_some_and(|(one, other)| one.takes_same_rows(other))
        };
        let position = self.texts.iter().position(is_same).unwrap_or_else(|| {
            self.texts.push(CountedTexts { nth, feature: index, widths: Vec::new() });
            self.texts.len() - 1
        });
        if let (Some(texts), Some(width)) = (self.texts.get_mut(position), width)
            && !texts.widths.contains(&width)
        {
            texts.widths.push(width);
        }
        position
    }
}
