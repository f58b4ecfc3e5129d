//! Claims are read before work starts, row by row.

use super::*;

#[test]
fn a_claim_on_an_algorithm_that_there_is_not_is_no_claim() {
    let claim = |better: &str| {
        format!(
            "claims=[{{ check = {{ kind = \"exceeds\", metric = \"eval/animals\", better = \"{better}\", \
             worse = \"rwr\", standard_errors = 3.0, source = \"Fig. 4\" }} }}]"
        )
    };
    assert!(load(&[&claim("ddpo-is")]).is_ok());
    refused(
        &[&claim("ddpo-iz")],
        &["--set: `claims` speak of the algorithm `ddpo-iz`: did you mean `ddpo-is`?"],
    );
}

#[test]
fn of_claims_only_the_row_that_is_wrong_is_shown() {
    let good = "{ check = { kind = \"exceeds\", metric = \"eval/animals\", better = \"ddpo-is\", \
                worse = \"rwr\", standard_errors = 3.0, source = \"Fig. 4\" } }";
    let error = load(&[&format!(
        "claims=[{good}, {}]",
        good.replace("better", "bettter")
    )])
    .expect_err("a key that claims do not have")
    .to_string();
    assert!(error.contains("`claims` row 2: "), "{error}");
    assert!(error.contains("bettter"), "{error}");
    assert!(!error.contains("Fig. 4"), "{error}");
}
