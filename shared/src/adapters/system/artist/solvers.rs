//! Solves captchas the simple way: templates for the picture, normalised correlation with the
//! recordings for the sound. Both solve what the crate makes by itself, as this product once used
//! it, and must not solve what is made now.

use std::{f64::consts::TAU, ops::RangeInclusive};

use captcha::{
    Captcha,
    filters::{Noise, Wave},
};
use hound::WavReader;

use super::{
    ALPHABET, ANSWER_CHARS, Artist,
    dice::Dice,
    picture::{Ink, LETTERS},
    sound::RECORDINGS,
};
use crate::{adapters::system::SystemRandom, ports::CaptchaArtist as _};

/// Captchas of which at most one may be solved.
const TRIED: usize = 20;

/// How many of some random answers the solver finds.
fn solved(count: usize, solve: impl Fn(&str) -> String) -> usize {
    let answers = (0..count).map(|_| Artist.answer(&SystemRandom));
    answers.filter(|answer| solve(answer) == *answer).count()
}

#[test]
fn templates_solve_the_crate_s_pictures_and_not_ours() {
    let earlier = solved(10, |answer| read_picture(&earlier_picture(answer)));
    assert!(earlier >= 5, "the solver is no solver: {earlier} of 10");
    let now = solved(TRIED, |answer| read_picture(&Artist.draw(answer).unwrap()));
    assert!(now <= 1, "{now} of {TRIED}");
}

#[test]
fn correlation_solves_the_crate_s_sounds_and_not_ours() {
    let earlier = solved(10, |answer| hear(&earlier_sound(answer)));
    assert!(earlier >= 5, "the solver is no solver: {earlier} of 10");
    let now = solved(TRIED, |answer| hear(&samples(&Artist.speak(answer).unwrap())));
    assert!(now <= 1, "{now} of {TRIED}");
}

fn spelled(answer: &str) -> Captcha {
    let mut spelled = Captcha::new();
    for letter in answer.chars() {
        spelled.set_chars(&[letter]).add_char();
    }
    spelled
}

/// One font, fixed waves, black noise.
fn earlier_picture(answer: &str) -> Vec<u8> {
    let mut drawn = spelled(answer);
    drawn
        .apply_filter(Noise::new(0.2))
        .apply_filter(Wave::new(2.0, 8.0).horizontal())
        .apply_filter(Wave::new(2.0, 10.0).vertical());
    drawn.view(220, 100).as_png().unwrap()
}

/// One recording after the other, and bounded noise.
fn earlier_sound(answer: &str) -> Vec<f32> {
    let mut dice = Dice::new();
    let recordings = spelled(answer).as_wav().into_iter().flat_map(|wav| samples(&wav.unwrap()));
    recordings.map(|sample| sample + dice.between(-2_048.0, 2_048.0)).collect()
}

fn samples(wav: &[u8]) -> Vec<f32> {
    let samples = WavReader::new(wav).unwrap().into_samples::<i16>();
    samples.map(|sample| f32::from(sample.unwrap())).collect()
}

/// The ink of a picture at a point.
type Look<'p> = &'p dyn Fn(i32, i32) -> f32;

/// Where letters are looked for.
struct Search {
    scales: &'static [f32],
    /// Left edge of the first letter.
    first: RangeInclusive<i32>,
    /// Middle of each letter.
    middle: RangeInclusive<i32>,
    /// Between two places.
    step: usize,
    /// How far the next letter may be from where it should begin.
    slack: i32,
}

/// Undoes the fixed waves for every place at which the view may have been cut out; also takes the
/// picture as it is. The reading whose letters are most alike counts.
fn read_picture(png: &[u8]) -> String {
    let picture = image::load_from_memory(png).unwrap().into_luma8();
    let ink = |x: i32, y: i32| match (u32::try_from(x), u32::try_from(y)) {
        (Ok(x), Ok(y)) if x < picture.width() && y < picture.height() => {
            1.0 - f32::from(picture.get_pixel(x, y).0[0]) / 255.0
        }
        _ => 0.0,
    };
    let exact = Search { scales: &[1.0], first: 100..=100, middle: 150..=150, step: 1, slack: 0 };
    let loose = Search { scales: &[1.0, 1.25], first: 4..=50, middle: 38..=62, step: 3, slack: 6 };
    let mut readings = vec![read(&ink, &loose)];
    for right in (180..320).step_by(2) {
        let wave = |at: i32, amplitude: f64| {
            ((f64::from(at) * TAU * 2.0 / 400.0).sin() * amplitude) as i32
        };
        let undone = |x: i32, y: i32| {
            let y = y - wave(x, 8.0);
            let x = x - wave(y, 10.0);
            ink(x + 110 - (100 + right) / 2, y - 100)
        };
        readings.push(read(&undone, &exact));
    }
    readings.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap().1
}

/// Letter by letter from the left, each time the template that is most alike. Also gives the sum of
/// the likenesses.
fn read(look: Look<'_>, search: &Search) -> (f32, String) {
    let (mut text, mut sum, mut from) = (String::new(), 0.0, search.first.clone());
    for _ in 0..ANSWER_CHARS {
        let (mut most, mut found) = (f32::MIN, (0, 0));
        for (letter, name) in LETTERS.iter().zip(ALPHABET) {
            let letter = letter.as_ref().unwrap();
            for scale in search.scales {
                let (width, height) =
                    ((letter.width as f32 * scale) as i32, (letter.height as f32 * scale) as i32);
                for left in from.clone().step_by(search.step) {
                    for middle in search.middle.clone().step_by(search.step) {
                        let like = likeness(look, letter, *scale, left, middle - height / 2);
                        if like > most {
                            (most, found) = (like, (*name, left + width - 1));
                        }
                    }
                }
            }
        }
        text.push(char::from(found.0));
        sum += most;
        from = found.1 - search.slack..=found.1 + search.slack;
    }
    (sum, text)
}

/// Normalised correlation of a letter with the picture, on every third point.
fn likeness(look: Look<'_>, letter: &Ink, scale: f32, left: i32, top: i32) -> f32 {
    let (width, height) = (letter.width as f32 * scale, letter.height as f32 * scale);
    let mut pairs = Vec::with_capacity(300);
    for y in (-2..height as i32 + 2).step_by(3) {
        for x in (-1..width as i32 + 1).step_by(3) {
            let there = letter.at((x as f32 / scale) as i32, (y as f32 / scale) as i32);
            pairs.push((there, look(left + x, top + y)));
        }
    }
    let count = pairs.len() as f32;
    let (sum_a, sum_b) = pairs.iter().fold((0.0, 0.0), |sums, (a, b)| (sums.0 + a, sums.1 + b));
    let (mean_a, mean_b) = (sum_a / count, sum_b / count);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    ab / f32::max((aa * bb).sqrt(), f32::EPSILON)
}

/// The five places at which a recording is most alike, in their order.
fn hear(sound: &[f32]) -> String {
    /// Samples that are taken together.
    const SHRINK: usize = 20;
    /// Samples of a recording that are compared.
    const COMPARED: usize = 250;
    let shrunk = |samples: &[f32]| -> Vec<f32> {
        samples.chunks(SHRINK).map(|some| some.iter().sum::<f32>() / SHRINK as f32).collect()
    };
    let sound = shrunk(sound);
    // Sums of squares up to each sample.
    let mut squares = vec![0.0_f64];
    for sample in &sound {
        squares.push(squares[squares.len() - 1] + f64::from(sample * sample));
    }
    let mut places = Vec::new();
    for (recording, name) in RECORDINGS.iter().zip(ALPHABET) {
        let recording = shrunk(recording.as_ref().unwrap());
        let recording = &recording[..recording.len().min(COMPARED)];
        let own: f32 = recording.iter().map(|sample| sample * sample).sum();
        for (place, heard) in sound.windows(recording.len()).enumerate() {
            let heard_squares = (squares[place + recording.len()] - squares[place]) as f32;
            let both: f32 = recording.iter().zip(heard).map(|(a, b)| a * b).sum();
            let size = f32::max((own * heard_squares).sqrt(), f32::EPSILON);
            places.push((both.abs() / size, place, *name));
        }
    }
    places.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let apart = 22_050 / SHRINK / 3;
    let mut picked: Vec<(usize, u8)> = Vec::new();
    for (_, place, name) in places {
        let is_new = picked.iter().all(|(other, _)| other.abs_diff(place) > apart);
        if picked.len() < ANSWER_CHARS && is_new {
            picked.push((place, name));
        }
    }
    picked.sort_unstable();
    picked.into_iter().map(|(_, name)| char::from(name)).collect()
}
