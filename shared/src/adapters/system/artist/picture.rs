//! The picture of a captcha: each letter rotated, sheared, stretched and bent on its own, touching
//! its neighbours, the whole bent once more with random phases, crossed by strokes that add and
//! remove ink, and speckled. A fixed distortion could be undone by whoever knows it.

use std::{io::Cursor, sync::LazyLock};

use captcha::Captcha;
use image::{GrayImage, ImageFormat, Luma};

use super::{ALPHABET, dice::Dice};

/// Size of a picture, in points.
const WIDTH: u32 = 220;
const HEIGHT: u32 = 100;
/// Free border at the left and at the right, in points.
const BORDER: f32 = 8.0;

/// Ink by point, 0 to 1.
pub(super) struct Ink {
    pub(super) width: usize,
    pub(super) height: usize,
    points: Vec<f32>,
}

impl Ink {
    fn blank(width: usize, height: usize) -> Self {
        Self { width, height, points: vec![0.0; width * height] }
    }

    pub(super) fn at(&self, x: i32, y: i32) -> f32 {
        match (usize::try_from(x), usize::try_from(y)) {
            (Ok(x), Ok(y)) if x < self.width && y < self.height => self.points[y * self.width + x],
            _ => 0.0,
        }
    }

    /// The ink between points, interpolated.
    fn sample(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (right_share, bottom_share) = (x - left, y - top);
        let (left, top) = (left as i32, top as i32);
        let row = |y| self.at(left, y) * (1.0 - right_share) + self.at(left + 1, y) * right_share;
        row(top) * (1.0 - bottom_share) + row(top + 1) * bottom_share
    }

    fn points_mut(&mut self) -> impl Iterator<Item = (f32, f32, &mut f32)> {
        let width = self.width;
        let place = move |index: usize| ((index % width) as f32, (index / width) as f32);
        self.points.iter_mut().enumerate().map(move |(index, ink)| {
            let (x, y) = place(index);
            (x, y, ink)
        })
    }
}

/// The letters of the alphabet as the crate draws them, each cut out.
pub(super) static LETTERS: LazyLock<Vec<Option<Ink>>> =
    LazyLock::new(|| ALPHABET.iter().map(|letter| cut_out(char::from(*letter))).collect());

fn cut_out(letter: char) -> Option<Ink> {
    let mut drawn = Captcha::new();
    drawn.set_chars(&[letter]).add_char();
    let area = drawn.text_area();
    let picture = image::load_from_memory(&drawn.as_png()?).ok()?.into_luma8();
    let (width, height) = (area.right - area.left + 1, area.bottom - area.top + 1);
    let mut ink = Ink::blank(width as usize, height as usize);
    for (x, y, point) in ink.points_mut() {
        let Luma([light]) = *picture.get_pixel(area.left + x as u32, area.top + y as u32);
        *point = 1.0 - f32::from(light) / 255.0;
    }
    Some(ink)
}

/// A wave that moves points along one axis.
struct Wave {
    amplitude: f32,
    period: f32,
    phase: f32,
}

impl Wave {
    fn random(dice: &mut Dice, amplitude: (f32, f32), period: (f32, f32)) -> Self {
        Self {
            amplitude: dice.between(amplitude.0, amplitude.1),
            period: dice.between(period.0, period.1),
            phase: dice.turn(),
        }
    }

    fn at(&self, place: f32) -> f32 {
        self.amplitude * (place / self.period * std::f32::consts::TAU + self.phase).sin()
    }
}

/// How one letter is written.
struct Hand<'l> {
    letter: &'l Ink,
    scale: (f32, f32),
    shear: f32,
    angle: f32,
    bend: (Wave, Wave),
    bold: f32,
    rise: f32,
}

impl<'l> Hand<'l> {
    fn random(letter: &'l Ink, dice: &mut Dice) -> Self {
        Self {
            letter,
            scale: (dice.between(1.0, 1.35), dice.between(1.1, 1.5)),
            shear: dice.between(-0.25, 0.25),
            angle: dice.between(-0.35, 0.35),
            bend: (
                Wave::random(dice, (0.8, 1.8), (20.0, 34.0)),
                Wave::random(dice, (0.8, 1.8), (20.0, 34.0)),
            ),
            bold: dice.between(0.0, 1.2),
            rise: dice.between(-9.0, 9.0),
        }
    }

    fn width(&self) -> f32 {
        let (width, height) =
            (self.letter.width as f32 * self.scale.0, self.letter.height as f32 * self.scale.1);
        width * self.angle.cos() + 0.35 * height * self.angle.sin().abs()
    }

    /// The letter's ink at a place relative to its middle.
    fn ink(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x + self.bend.0.at(y), y + self.bend.1.at(x));
        let (sin, cos) = self.angle.sin_cos();
        let (x, y) = (x * cos + y * sin, y * cos - x * sin);
        let x = x + self.shear * y;
        let (x, y) = (x / self.scale.0, y / self.scale.1);
        let (x, y) = (x + self.letter.width as f32 / 2.0, y + self.letter.height as f32 / 2.0);
        let thin = self.letter.sample(x, y);
        let thick = self.letter.sample(x + self.bold, y).max(self.letter.sample(x, y + self.bold));
        thin.max(thick)
    }
}

/// A stroke across the whole picture.
struct Stroke {
    height: f32,
    slope: f32,
    wave: Wave,
    half: f32,
}

impl Stroke {
    fn random(dice: &mut Dice, half: (f32, f32)) -> Self {
        Self {
            height: dice.between(20.0, HEIGHT as f32 - 20.0),
            slope: dice.between(-0.25, 0.25),
            wave: Wave::random(dice, (6.0, 16.0), (70.0, 200.0)),
            half: dice.between(half.0, half.1),
        }
    }

    fn ink(&self, x: f32, y: f32) -> f32 {
        let middle = self.height + self.slope * (x - WIDTH as f32 / 2.0) + self.wave.at(x);
        (self.half + 0.5 - (y - middle).abs()).clamp(0.0, 1.0)
    }
}

/// Draws the letters; `None` for one that is not in the alphabet.
pub(super) fn draw(answer: &str, dice: &mut Dice) -> Option<Vec<u8>> {
    let mut hands = Vec::with_capacity(answer.len());
    for letter in answer.bytes() {
        let at = ALPHABET.iter().position(|known| *known == letter)?;
        hands.push(Hand::random(LETTERS[at].as_ref()?, dice));
    }
    // Letters touch or overlap a little; the whole fits.
    let gaps: Vec<f32> = hands.iter().map(|_| dice.between(-2.5, 2.5)).collect();
    let total: f32 = hands.iter().map(Hand::width).sum::<f32>() + gaps.iter().sum::<f32>();
    let room = WIDTH as f32 - 2.0 * BORDER;
    let squeeze = (room / total).min(1.0);
    for hand in &mut hands {
        hand.scale.0 *= squeeze;
    }
    let mut written = Ink::blank(WIDTH as usize, HEIGHT as usize);
    let mut left = BORDER + dice.between(0.0, (room - total * squeeze).max(0.1));
    for (hand, gap) in hands.iter().zip(gaps) {
        let middle = left + hand.width() / 2.0;
        left += hand.width() + gap * squeeze;
        for (x, y, ink) in written.points_mut() {
            let (x, y) = (x - middle, y - HEIGHT as f32 / 2.0 - hand.rise);
            if x.abs() < 45.0 && y.abs() < 45.0 {
                *ink = ink.max(hand.ink(x, y));
            }
        }
    }
    let sideways = [
        Wave::random(dice, (2.0, 4.5), (60.0, 110.0)),
        Wave::random(dice, (0.5, 1.5), (20.0, 35.0)),
    ];
    let upright = [
        Wave::random(dice, (3.0, 6.0), (70.0, 140.0)),
        Wave::random(dice, (0.5, 1.5), (20.0, 35.0)),
    ];
    let added: Vec<Stroke> = (0..2).map(|_| Stroke::random(dice, (0.6, 1.1))).collect();
    let removed: Vec<Stroke> = (0..2).map(|_| Stroke::random(dice, (0.2, 0.6))).collect();
    let mut bent = Ink::blank(WIDTH as usize, HEIGHT as usize);
    for (x, y, ink) in bent.points_mut() {
        let dx: f32 = sideways.iter().map(|wave| wave.at(y)).sum();
        let dy: f32 = upright.iter().map(|wave| wave.at(x)).sum();
        let most =
            |strokes: &[Stroke]| strokes.iter().map(|stroke| stroke.ink(x, y)).fold(0.0, f32::max);
        *ink = (written.sample(x + dx, y + dy) * (1.0 - most(&removed))).max(most(&added));
    }
    let paper = dice.between(215.0, 255.0);
    let dark = dice.between(0.0, 40.0);
    let mut picture = GrayImage::new(WIDTH, HEIGHT);
    for (x, y, ink) in bent.points_mut() {
        let share = match dice.between(0.0, 1.0) {
            speck if speck < 0.03 => 1.0 - *ink,
            grain => (*ink + (grain - 0.5) * 0.2).clamp(0.0, 1.0),
        };
        let light = paper + (dark - paper) * share;
        picture.put_pixel(x as u32, y as u32, Luma([light as u8]));
    }
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).ok()?;
    Some(png.into_inner())
}
