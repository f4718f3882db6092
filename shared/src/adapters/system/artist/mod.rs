//! Captchas of letters, drawn and spoken.
//!
//! The `captcha` crate gives each letter's shape and recording; this module extracts both once per
//! process, because the crate parses its tables again for every use. Its own pictures and sounds
//! are not used: they are the same each time but for noise, so that templates and subtraction solve
//! them. The tests do that.

mod dice;
mod picture;
#[cfg(test)]
mod solvers;
mod sound;

use dice::Dice;

use crate::ports::{CaptchaArtist, Random, StoreError, Stored};

/// Length of an answer.
const ANSWER_CHARS: usize = 5;
/// Characters that look different in every font and can be spoken.
const ALPHABET: &[u8; 16] = b"acdefhkmnprstwxy";

/// Draws a PNG of 220 by 100 points, and speaks a WAV of some seconds.
#[derive(Debug, Clone, Copy)]
pub struct Artist;

impl CaptchaArtist for Artist {
    fn answer(&self, random: &dyn Random) -> String {
        let mut bytes = [0; ANSWER_CHARS];
        random.fill(&mut bytes);
        // 256 is a multiple of the sixteen characters, so each is equally likely.
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 16)])).collect()
    }

    fn draw(&self, answer: &str) -> Stored<Vec<u8>> {
        picture::draw(answer, &mut Dice::new()).ok_or_else(|| corrupt("no picture could be drawn"))
    }

    fn speak(&self, answer: &str) -> Stored<Vec<u8>> {
        sound::speak(answer, &mut Dice::new()).ok_or_else(|| corrupt("no sound could be made"))
    }
}

fn corrupt(cause: &str) -> StoreError {
    StoreError::Corrupt { store: "captcha", cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::system::SystemRandom;

    #[test]
    fn every_character_can_be_drawn_and_spoken() {
        let all = String::from_utf8(ALPHABET.to_vec()).unwrap();
        assert!(Artist.draw(&all).unwrap().starts_with(b"\x89PNG"));
        let sound = Artist.speak(&all).unwrap();
        assert_eq!((&sound[..4], &sound[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
        let riff_bytes = u32::from_le_bytes(sound[4..8].try_into().unwrap());
        assert_eq!(riff_bytes as usize, sound.len() - 8);

        let answer = Artist.answer(&SystemRandom);
        assert_eq!(answer.len(), ANSWER_CHARS);
        assert_ne!(Artist.speak(&answer).unwrap(), Artist.speak(&answer).unwrap());
        assert_ne!(Artist.draw(&answer).unwrap(), Artist.draw(&answer).unwrap());
    }

    #[test]
    fn other_characters_are_refused() {
        for unknown in ["b", "acd1f", "A"] {
            assert!(Artist.draw(unknown).is_err() && Artist.speak(unknown).is_err(), "{unknown}");
        }
    }
}
