//! Captchas, drawn and spoken with the `captcha` crate.
//!
//! The crate parses its table of sounds (4 MB of JSON) again for every spoken captcha; this module
//! extracts each character's sound once per process. The crate's table of characters (49 KB) is
//! private, and every drawing parses it.

use std::sync::LazyLock;

use captcha::{
    Captcha,
    filters::{Noise, Wave},
};

use super::SystemRandom;
use crate::ports::{CaptchaArtist, Random, StoreError, Stored};

/// Length of an answer.
const ANSWER_CHARS: usize = 5;
/// Characters that look different in every font and can be spoken.
const ALPHABET: &[u8; 16] = b"acdefhkmnprstwxy";

/// Draws a PNG of about 200 by 80 points and speaks a WAV, character by character.
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
        let mut captcha = spelled(answer);
        captcha
            .apply_filter(Noise::new(0.2))
            .apply_filter(Wave::new(2.0, 8.0).horizontal())
            .apply_filter(Wave::new(2.0, 10.0).vertical());
        captcha.view(220, 100).as_png().ok_or_else(|| corrupt("no picture could be drawn"))
    }

    fn speak(&self, answer: &str) -> Stored<Vec<u8>> {
        let mut parts = Vec::with_capacity(answer.len());
        for char in answer.bytes() {
            let at = ALPHABET.iter().position(|known| *known == char);
            let sound = at.and_then(|at| SOUNDS.get(at)?.as_deref());
            parts.push(sound.ok_or_else(|| corrupt("a character has no sound"))?);
        }
        let (mut sound, start) = join_wav(&parts).ok_or_else(|| corrupt("a sound is no WAV"))?;
        add_noise(&mut sound[start..]);
        Ok(sound)
    }
}

/// The sound of each character of the alphabet, WAV with 16 bits a sample; about 1 MB in all.
static SOUNDS: LazyLock<Vec<Option<Vec<u8>>>> = LazyLock::new(|| {
    let alphabet: String = ALPHABET.iter().copied().map(char::from).collect();
    spelled(&alphabet).as_wav()
});

/// Adds noise to each sample, so that no two sounds of a character have the same bytes.
fn add_noise(samples: &mut [u8]) {
    let mut noise = vec![0; samples.len() / 2];
    SystemRandom.fill(&mut noise);
    for (sample, noise) in samples.chunks_exact_mut(2).zip(noise) {
        let loud = i16::from_le_bytes([sample[0], sample[1]])
            .saturating_add((i16::from(noise) - 128) * 16);
        sample.copy_from_slice(&loud.to_le_bytes());
    }
}

fn spelled(answer: &str) -> Captcha {
    let mut captcha = Captcha::new();
    for char in answer.chars() {
        captcha.set_chars(&[char]).add_char();
    }
    captcha
}

fn corrupt(cause: &str) -> StoreError {
    StoreError::Corrupt { store: "captcha", cause: cause.to_owned() }
}

/// Byte range of a WAV's samples.
fn samples(wav: &[u8]) -> Option<std::ops::Range<usize>> {
    const CHUNK_HEADER_BYTES: usize = 8;
    let mut at = 12; // past "RIFF", the size and "WAVE"
    loop {
        let header = wav.get(at..at + CHUNK_HEADER_BYTES)?;
        let size = u32::from_le_bytes(header[4..].try_into().ok()?) as usize;
        let start = at + CHUNK_HEADER_BYTES;
        if &header[..4] == b"data" {
            let end = start.checked_add(size)?;
            return (end <= wav.len()).then_some(start..end);
        }
        at = start.checked_add(size + size % 2)?;
    }
}

/// Joins the samples of all sounds into one WAV under the first one's header (the crate's sounds
/// share one format). Also returns where the samples begin.
fn join_wav(parts: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let first = parts.first()?;
    let start = samples(first)?.start;
    let mut joined = first[..start].to_vec();
    for part in parts {
        joined.extend_from_slice(&part[samples(part)?]);
    }
    let data_bytes = u32::try_from(joined.len() - start).ok()?;
    let riff_bytes = u32::try_from(joined.len() - 8).ok()?;
    joined[start - 4..start].copy_from_slice(&data_bytes.to_le_bytes());
    joined[4..8].copy_from_slice(&riff_bytes.to_le_bytes());
    Some((joined, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::system::SystemRandom;

    #[test]
    fn every_character_can_be_drawn_and_spoken() {
        let all = String::from_utf8(ALPHABET.to_vec()).unwrap();
        let sound = Artist.speak(&all).unwrap();
        assert_eq!(&sound[..4], b"RIFF");
        let range = samples(&sound).unwrap();
        assert_eq!(range.end, sound.len());
        let answer = Artist.answer(&SystemRandom);
        assert_eq!(answer.len(), ANSWER_CHARS);
        let spoken = Artist.speak(&answer).unwrap();
        let samples_of_one = (range.end - range.start) / ALPHABET.len();
        assert_eq!(samples(&spoken).unwrap().len(), samples_of_one * ANSWER_CHARS);
        assert_ne!(Artist.speak(&answer).unwrap(), spoken, "with noise of its own");
        assert!(Artist.draw(&answer).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_broken_wav_is_refused() {
        assert_eq!(join_wav(&[b"RIFF"]), None);
        assert_eq!(join_wav(&[]), None);
    }
}
