//! How many leases of a group a member holds. Pure.

/// Returns the number of leases for `member`: an equal part, and one more for the first members if there is a rest.
/// `members` is sorted.
pub fn fair_share(names: usize, members: &[String], member: &str) -> usize {
    let count = members.len().max(1);
    let position = members.iter().position(|known| known == member).unwrap_or(count);
    names / count + usize::from(position < names % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_everything() {
        for names in 0..40 {
            for count in 1..7 {
                let members: Vec<String> = (0..count).map(|number| format!("member-{number}")).collect();
                let shares: Vec<usize> =
                    members.iter().map(|member| fair_share(names, &members, member)).collect();
                assert_eq!(shares.iter().sum::<usize>(), names);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn a_member_that_is_not_listed_yet_gets_nothing_of_the_rest() {
        assert_eq!(fair_share(5, &["a".into(), "b".into()], "c"), 2);
    }
}
