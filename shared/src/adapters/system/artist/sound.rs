//! The sound of a captcha: the crate's recording of each letter, stretched at a changing rate,
//! coloured, echoed and placed by chance, over babble made of other letters. Whoever has the
//! recordings can't find them in it by subtracting or correlating them.
//!
//! The crate parses its table of sounds (4 MB of JSON) again for every sound; this module extracts
//! each letter's sound once per process.

use std::{io::Cursor, sync::LazyLock};

use captcha::Captcha;
use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use super::{ALPHABET, dice::Dice};

/// Samples of a second, as in the recordings.
const RATE: u32 = 22_050;
/// Sounds of babble at the same time.
const BABBLERS: usize = 3;
/// Loudness of all the babble against the letters.
const BABBLE: f32 = 0.3;
/// Each recording begins with the same word; from this sample on it speaks its letter.
const LETTER_FROM: usize = 15_300;
/// A stretch of this many samples is silent if it is hardly louder than the recording's end.
const STRETCH: usize = 900;
const HARDLY: f32 = 1.3;

/// The recording of each letter of the alphabet, without the word before it and the silence after
/// it, as loud as the others.
pub(super) static RECORDINGS: LazyLock<Vec<Option<Vec<f32>>>> = LazyLock::new(|| {
    let mut spelled = Captcha::new();
    for letter in ALPHABET {
        spelled.set_chars(&[char::from(*letter)]).add_char();
    }
    spelled.as_wav().into_iter().map(|wav| wav.as_deref().and_then(recording)).collect()
});

fn recording(wav: &[u8]) -> Option<Vec<f32>> {
    let samples: Result<Vec<i16>, _> = WavReader::new(wav).ok()?.into_samples().collect();
    let samples: Vec<f32> = samples.ok()?.into_iter().map(f32::from).collect();
    let letter = samples.get(LETTER_FROM..)?;
    let loudness = |stretch: &[f32]| {
        (stretch.iter().map(|sample| sample * sample).sum::<f32>() / stretch.len() as f32).sqrt()
    };
    let silence = loudness(letter.chunks_exact(STRETCH).next_back()?);
    let stretches = letter.chunks_exact(STRETCH);
    let last = stretches.clone().rposition(|stretch| loudness(stretch) > HARDLY * silence)?;
    let heard = letter.get(..(last + 1) * STRETCH)?;
    let gain = 1.0 / loudness(heard);
    Some(heard.iter().map(|sample| sample * gain).collect())
}

/// Seconds as a number of samples.
fn seconds(seconds: f32) -> usize {
    (seconds * RATE as f32) as usize
}

/// A recording at a rate that swings around `rate`.
fn stretched(recording: &[f32], rate: f32, dice: &mut Dice) -> Vec<f32> {
    let (swing, phase) = (dice.between(0.06, 0.14), dice.turn());
    let period = dice.between(0.12, 0.35) * RATE as f32;
    let mut stretched = Vec::with_capacity(recording.len() * 2);
    let mut place = 0.0_f32;
    while (place as usize) + 1 < recording.len() {
        let (at, share) = (place as usize, place.fract());
        stretched.push(recording[at] * (1.0 - share) + recording[at + 1] * share);
        let turn = stretched.len() as f32 / period * std::f32::consts::TAU;
        place += rate * (1.0 + swing * (turn + phase).sin());
    }
    stretched
}

/// Makes a sound darker or brighter, adds an echo, and fades its ends.
fn coloured(sound: &mut [f32], dice: &mut Dice) {
    let (keep, tilt) = (dice.between(0.3, 0.8), dice.between(-0.6, 0.9));
    let mut low = 0.0;
    for sample in sound.iter_mut() {
        low = low * keep + *sample * (1.0 - keep);
        *sample += tilt * low;
    }
    let (delay, echo) = (seconds(dice.between(0.002, 0.011)), dice.between(-0.6, 0.6));
    for at in (delay..sound.len()).rev() {
        sound[at] += echo * sound[at - delay];
    }
    let fade = seconds(0.015).min(sound.len() / 2);
    let end = sound.len() - fade;
    let share = |at: usize| at as f32 / fade as f32;
    for (at, sample) in sound[..fade].iter_mut().enumerate() {
        *sample *= share(at);
    }
    for (at, sample) in sound[end..].iter_mut().enumerate() {
        *sample *= 1.0 - share(at);
    }
}

/// One babbler: letters without end, forwards and backwards.
fn babble(length: usize, dice: &mut Dice) -> Option<Vec<f32>> {
    let mut babble = Vec::with_capacity(length + RATE as usize);
    while babble.len() < length {
        let letter = RECORDINGS[dice.below(ALPHABET.len())].as_ref()?;
        let mut sound = stretched(letter, dice.between(0.75, 1.4), dice);
        if dice.below(3) > 0 {
            sound.reverse();
        }
        coloured(&mut sound, dice);
        let gain = dice.between(0.5, 1.2);
        babble.extend(sound.iter().map(|sample| sample * gain));
    }
    // Begins anywhere.
    babble.rotate_left(dice.below(length.max(1)));
    babble.truncate(length);
    Some(babble)
}

/// Speaks the letters, WAV; `None` for one that is not in the alphabet.
pub(super) fn speak(answer: &str, dice: &mut Dice) -> Option<Vec<u8>> {
    let mut mixed: Vec<f32> = vec![0.0; seconds(dice.between(0.3, 0.8))];
    for letter in answer.bytes() {
        let at = ALPHABET.iter().position(|known| *known == letter)?;
        let mut sound = stretched(RECORDINGS[at].as_ref()?, dice.between(0.86, 1.14), dice);
        coloured(&mut sound, dice);
        let gain = dice.between(0.8, 1.1);
        // Neighbours overlap a little, or leave a pause.
        let overlap = seconds(dice.between(0.0, 0.05)).min(mixed.len());
        let start = mixed.len() - overlap;
        mixed.resize(start + sound.len(), 0.0);
        for (sample, sound) in mixed[start..].iter_mut().zip(&sound) {
            *sample += gain * sound;
        }
        mixed.resize(mixed.len() + seconds(dice.between(0.05, 0.4)), 0.0);
    }
    mixed.resize(mixed.len() + seconds(dice.between(0.2, 0.6)), 0.0);
    for _ in 0..BABBLERS {
        let babble = babble(mixed.len(), dice)?;
        let gain = BABBLE / (BABBLERS as f32).sqrt();
        for (sample, babble) in mixed.iter_mut().zip(babble) {
            *sample += gain * babble + dice.between(-0.02, 0.02);
        }
    }
    let loudest = mixed.iter().fold(1.0_f32, |most, sample| most.max(sample.abs()));
    let spec = WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut wav = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut wav, spec).ok()?;
    for sample in &mixed {
        writer.write_sample((sample / loudest * 30_000.0) as i16).ok()?;
    }
    writer.finalize().ok()?;
    Some(wav.into_inner())
}
