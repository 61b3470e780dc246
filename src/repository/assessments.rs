//! Risk assessments: look-ups, pages and the recording of a batch.

mod level;
mod pages;
mod recording;
mod stored;

pub use pages::{AssessmentFilter, page};
pub use recording::{NewAssessment, WrittenAssessments, record};
pub use stored::{StoredAssessment, find, find_all};
