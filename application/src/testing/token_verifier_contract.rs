//! The contract of the `token_verifier` port.
//!
//! It knows a verifier and somebody who makes tokens for it, and nothing about how a token looks
//! inside; so it must never ask for more than every kind of signed token can promise.

use std::time::Duration;

use domain::id::UserId;
use domain::time::Wall;

use crate::ports::token_verifier::{TokenError, TokenVerifier};

/// A verifier and what is needed to try it.
pub struct TokenVerifierContract<'c> {
    /// The verifier under test.
    pub verifier: &'c dyn TokenVerifier,
    /// Makes a token for [`Self::subject`] that ends at the given instant, a whole second.
    pub mint: &'c dyn Fn(Wall) -> String,
    /// Whom the tokens are for.
    pub subject: UserId,
    /// The leeway that the verifier grants at the end.
    pub leeway: Duration,
    /// A present, well before the last year.
    pub now: Wall,
}

impl TokenVerifierContract<'_> {
    /// Checks everything below.
    ///
    /// # Panics
    /// When the verifier breaks the contract.
    pub async fn check(&self) {
        self.a_valid_token_gives_its_principal().await;
        self.a_token_is_expired_from_its_end_and_the_leeway_on().await;
        self.anything_that_is_not_a_token_is_malformed().await;
        self.a_huge_string_is_malformed().await;
        self.a_flipped_bit_anywhere_never_passes().await;
        self.a_token_cut_short_or_extended_never_passes().await;
    }

    fn expires_at(&self) -> Wall {
        self.now.after(Duration::from_secs(600))
    }

    /// A valid token says who it is and when it ends.
    ///
    /// # Panics
    /// When the verifier breaks the contract.
    pub async fn a_valid_token_gives_its_principal(&self) {
        let token = (self.mint)(self.expires_at());
        let principal = self.verifier.verify(&token, self.now).await;
        let found = principal.as_ref().map(|found| (found.user.as_ref(), found.expires_at));
        assert_eq!(found, Ok((Some(&self.subject), Some(self.expires_at()))));
        let again = self.verifier.verify(&token, self.now).await;
        assert_eq!(again, principal, "verifying must not use a token up");
    }

    /// The leeway's last millisecond is accepted, the next one is not.
    ///
    /// # Panics
    /// When the verifier breaks the contract.
    pub async fn a_token_is_expired_from_its_end_and_the_leeway_on(&self) {
        let token = (self.mint)(self.expires_at());
        let end = self.expires_at().after(self.leeway);
        let before_end = Wall::from_millis(end.as_millis() - 1);
        assert!(self.verifier.verify(&token, before_end).await.is_ok());
        for late in [end, end.after(Duration::from_secs(1)), Wall::MAX] {
            let answer = self.verifier.verify(&token, late).await;
            assert_eq!(answer, Err(TokenError::Expired), "{late}");
        }
        assert!(self.verifier.verify(&token, self.now).await.is_ok(), "time is an argument only");
    }

    /// Text that is no token, and a token with something around it.
    ///
    /// # Panics
    /// When the verifier breaks the contract.
    pub async fn anything_that_is_not_a_token_is_malformed(&self) {
        let token = (self.mint)(self.expires_at());
        let around = [
            format!(" {token}"),
            format!("{token} "),
            format!("{token}\n"),
            format!("{token}\0"),
            format!("Bearer {token}"),
            format!("\"{token}\""),
            format!("\u{feff}{token}"),
        ];
        let texts = ["", " ", ".", "..", "...", "null", "{}", "abc", "a.b.c", "é.é.é", "\0.\0.\0"];
        for text in texts.into_iter().chain(around.iter().map(String::as_str)) {
            let answer = self.verifier.verify(text, self.now).await;
            assert_eq!(answer, Err(TokenError::Malformed), "{text:?}");
        }
    }

    /// A megabyte of anything is refused.
    ///
    /// # Panics
    /// When the verifier breaks the contract.
    pub async fn a_huge_string_is_malformed(&self) {
        let token = (self.mint)(self.expires_at());
        for piece in ["a", ".", "\u{1f980}", &token] {
            let huge = piece.repeat(1024 * 1024 / piece.len());
            let answer = self.verifier.verify(&huge, self.now).await;
            assert_eq!(answer, Err(TokenError::Malformed), "{} bytes", huge.len());
        }
    }

    /// Every bit that leaves the token a text is tried.
    ///
    /// # Panics
    /// When the verifier breaks the contract.
    pub async fn a_flipped_bit_anywhere_never_passes(&self) {
        let token = (self.mint)(self.expires_at());
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let answer = self.verifier.verify(&text, self.now).await;
                assert!(answer.is_err(), "byte {at}, bit {bit}: {text}");
            }
        }
    }

    /// No beginning of a token is one, and nothing may follow it.
    ///
    /// # Panics
    /// When the verifier breaks the contract.
    pub async fn a_token_cut_short_or_extended_never_passes(&self) {
        let token = (self.mint)(self.expires_at());
        for (end, _) in token.char_indices() {
            assert!(self.verifier.verify(&token[..end], self.now).await.is_err(), "cut at {end}");
            assert!(self.verifier.verify(&token[end + 1..], self.now).await.is_err());
        }
        for more in ["A", "=", ".", "\n", "%00", "AAAA"] {
            let longer = format!("{token}{more}");
            assert!(self.verifier.verify(&longer, self.now).await.is_err(), "{more:?}");
        }
    }
}
