//! Draws and speaks captchas, and makes proofs of work: on threads that answer no requests, on a part of the processors, and
//! in turns that are fair by address prefix.
//!
//! From the first request on, some pictures are drawn ahead while no request waits, so that a
//! request usually takes one from memory. An idle process draws nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    fair_queue::{FairTurns, Turn},
    local_cache::LocalCache,
};
use crate::{
    config,
    domain::{AddressPrefix, CaptchaId},
    ports::{CaptchaArtist, Random, StoreError},
    problem::Problem,
};

/// The studio's only queue.
const QUEUE: usize = 0;
/// Most cached sounds; one takes about 200 KB.
const SOUNDS_MAX: usize = 45;

/// A picture that belongs to no captcha yet.
pub(super) struct Drawing {
    /// The text in the picture.
    pub(super) answer: String,
    /// PNG as a data URI.
    pub(super) image: String,
}

/// Draws and speaks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Studio(Arc<Inner>);

struct Inner {
    artist: Arc<dyn CaptchaArtist>,
    random: Arc<dyn Random>,
    turns: FairTurns,
    ahead: Mutex<VecDeque<Drawing>>,
    ahead_max: usize,
    /// Whether a task is drawing ahead.
    drawing_ahead: AtomicBool,
    sounds: LocalCache<CaptchaId, Arc<Vec<u8>>, Problem>,
}

impl Studio {
    pub(super) fn new(
        artist: Arc<dyn CaptchaArtist>,
        random: Arc<dyn Random>,
        at_once: usize,
        config: &config::Captchas,
    ) -> Self {
        let sounds = LocalCache::new(SOUNDS_MAX, Duration::from_millis(config.ms()));
        Self(Arc::new(Inner {
            artist,
            random,
            turns: FairTurns::new(at_once, 1, config.waiting_max),
            ahead: Mutex::default(),
            ahead_max: config.drawn_ahead_max,
            drawing_ahead: AtomicBool::new(false),
            sounds,
        }))
    }

    /// A picture that no other request receives.
    pub(super) async fn draw(&self, prefix: AddressPrefix) -> Result<Drawing, Problem> {
        let drawing = match self.take() {
            Some(drawing) => drawing,
            None => {
                let turn = self.turn(prefix).await?;
                // Pictures may have been drawn ahead meanwhile.
                match self.take() {
                    Some(drawing) => drawing,
                    None => self.work(turn, |inner| inner.draw()).await?,
                }
            }
        };
        self.draw_ahead();
        Ok(drawing)
    }

    /// The sound of a captcha, made once and then cached in this process.
    pub(super) async fn speak(
        &self,
        prefix: AddressPrefix,
        captcha_id: CaptchaId,
        answer: String,
    ) -> Result<Vec<u8>, Problem> {
        let make = async {
            let turn = self.turn(prefix).await?;
            self.work(turn, move |inner| inner.artist.speak(&answer)).await.map(Arc::new)
        };
        let sound = self
            .0
            .sounds
            .load(captcha_id, make)
            .await
            .map_err(|problem: Arc<Problem>| (*problem).clone())?;
        Ok(sound.to_vec())
    }

    /// Runs other work of a captcha in turn.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        prefix: AddressPrefix,
        work: impl FnOnce(&dyn Random) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.turn(prefix).await?;
        self.work(turn, move |inner| work(inner.random.as_ref())).await
    }

    async fn turn(&self, prefix: AddressPrefix) -> Result<Turn, Problem> {
        let turn = self.0.turns.turn(QUEUE, prefix).await;
        turn.ok_or(Problem::RateLimited { name: "captchas", quota: None, retry_after_ms: 2_000 })
    }

    /// Runs work on a thread for blocking work. The turn is returned when the work ends, not when
    /// the caller disconnects.
    async fn work<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&inner)
        });
        let outcome = done.await.map_err(|error| {
            tracing::error!(%error, "captcha work ended early");
            Problem::Internal
        })?;
        Ok(outcome?)
    }

    fn take(&self) -> Option<Drawing> {
        self.0.ahead().pop_front()
    }

    /// Draws ahead in the background until enough pictures are ready or a request waits for a turn.
    fn draw_ahead(&self) {
        if self.0.ahead_is_full() || self.0.drawing_ahead.swap(true, Ordering::AcqRel) {
            return;
        }
        let studio = self.clone();
        tokio::spawn(async move {
            let _drawing_ahead = DrawingAhead(&studio.0.drawing_ahead);
            while !studio.0.ahead_is_full() {
                let Some(turn) = studio.0.turns.idle_turn() else { break };
                match studio.work(turn, |inner| inner.draw()).await {
                    Ok(drawing) => studio.0.ahead().push_back(drawing),
                    // Logged already; the next request tries again.
                    Err(_) => break,
                }
            }
        });
    }
}

impl Inner {
    fn draw(&self) -> Result<Drawing, StoreError> {
        let answer = self.artist.answer(self.random.as_ref());
        let image = format!("data:image/png;base64,{}", BASE64.encode(self.artist.draw(&answer)?));
        Ok(Drawing { answer, image })
    }

    fn ahead(&self) -> MutexGuard<'_, VecDeque<Drawing>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead_is_full(&self) -> bool {
        self.ahead().len() >= self.ahead_max
    }
}

/// Clears the flag when the task ends, also when it is aborted.
struct DrawingAhead<'s>(&'s AtomicBool);

impl Drop for DrawingAhead<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Condvar,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        time::Instant,
    };

    use super::*;
    use crate::{adapters::system::SystemRandom, ports::Stored, testing};

    /// Draws and speaks only as often as a test lets it.
    #[derive(Default)]
    struct SlowArtist {
        allowed: Mutex<usize>,
        more: Condvar,
        begun: AtomicUsize,
        drawn: AtomicUsize,
        at_work: AtomicUsize,
        at_work_most: AtomicUsize,
    }

    impl SlowArtist {
        fn allow(&self, count: usize) {
            *self.allowed.lock().unwrap() += count;
            self.more.notify_all();
        }

        fn work(&self) {
            self.begun.fetch_add(1, SeqCst);
            self.at_work_most.fetch_max(self.at_work.fetch_add(1, SeqCst) + 1, SeqCst);
            let mut allowed = self.allowed.lock().unwrap();
            while *allowed == 0 {
                allowed = self.more.wait(allowed).unwrap();
            }
            *allowed -= 1;
            self.at_work.fetch_sub(1, SeqCst);
            self.drawn.fetch_add(1, SeqCst);
        }
    }

    impl CaptchaArtist for SlowArtist {
        fn answer(&self, _: &dyn Random) -> String {
            "kpt4x".to_owned()
        }

        fn draw(&self, _: &str) -> Stored<Vec<u8>> {
            self.work();
            Ok(b"picture".to_vec())
        }

        fn speak(&self, _: &str) -> Stored<Vec<u8>> {
            self.work();
            Ok(b"sound".to_vec())
        }
    }

    /// Lets the artist finish when the test ends, also by failing: the runtime waits for it.
    struct Released(Arc<SlowArtist>);

    impl Drop for Released {
        fn drop(&mut self) {
            self.0.allow(1_000);
        }
    }

    impl std::ops::Deref for Released {
        type Target = SlowArtist;

        fn deref(&self) -> &SlowArtist {
            &self.0
        }
    }

    fn studio(drawn_ahead_max: usize, waiting_max: usize) -> (Studio, Released) {
        let artist = Arc::new(SlowArtist::default());
        let config = config::Captchas {
            drawn_ahead_max,
            waiting_max,
            ..config::Config::defaults().captchas
        };
        (Studio::new(artist.clone(), Arc::new(SystemRandom), 1, &config), Released(artist))
    }

    fn prefix(number: u8) -> AddressPrefix {
        AddressPrefix::of(std::net::Ipv4Addr::new(10, 0, number, 1).into())
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_drawing_keeps_its_turn_when_its_caller_goes_away() {
        let (studio, artist) = studio(0, 10);
        let first = tokio::spawn({
            let studio = studio.clone();
            async move { studio.draw(prefix(1)).await.map(drop) }
        });
        until("the first drawing begins", || artist.begun.load(SeqCst) == 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = tokio::spawn({
            let studio = studio.clone();
            async move { studio.draw(prefix(2)).await.map(drop) }
        });
        until("the second caller waits or draws", || {
            studio.0.turns.waiting(QUEUE) == 1 || artist.begun.load(SeqCst) == 2
        })
        .await;
        artist.allow(2);
        second.await.unwrap().unwrap();
        assert_eq!(artist.at_work_most.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn an_honest_captcha_waits_for_one_drawing_of_every_flooding_prefix() {
        let (studio, artist) = studio(0, 200);
        let flood: Vec<_> = (0..100)
            .map(|number| {
                let studio = studio.clone();
                tokio::spawn(async move { studio.draw(prefix(number % 20)).await.map(drop) })
            })
            .collect();
        until("the flood waits", || studio.0.turns.waiting(QUEUE) == 99).await;
        let honest = tokio::spawn({
            let studio = studio.clone();
            async move { studio.draw(prefix(200)).await.map(drop) }
        });
        until("the honest one waits", || studio.0.turns.waiting(QUEUE) == 100).await;
        // The drawing under way, one of each prefix, and its own.
        for allowed in 1..=22 {
            artist.allow(1);
            until("a drawing ends", || artist.drawn.load(SeqCst) == allowed).await;
        }
        until("the honest one is served", || honest.is_finished()).await;
        honest.await.unwrap().unwrap();
        artist.allow(100);
        for request in flood {
            request.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn beyond_the_queue_captchas_are_refused() {
        let (studio, artist) = studio(0, 4);
        let waiting: Vec<_> = (0..5)
            .map(|number| {
                let studio = studio.clone();
                tokio::spawn(async move { studio.draw(prefix(number)).await.map(drop) })
            })
            .collect();
        until("the queue is full", || studio.0.turns.waiting(QUEUE) == 4).await;
        assert!(matches!(
            studio.draw(prefix(9)).await,
            Err(Problem::RateLimited { name: "captchas", .. })
        ));
        artist.allow(5);
        for request in waiting {
            request.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn pictures_are_drawn_ahead_from_the_first_request_on_and_no_more_than_enough() {
        let (studio, artist) = studio(3, 10);
        artist.allow(100);
        assert_eq!(artist.begun.load(SeqCst), 0, "nothing is drawn before the first request");
        studio.draw(prefix(1)).await.unwrap();
        until("three are there", || {
            studio.0.ahead().len() == 3 && !studio.0.drawing_ahead.load(SeqCst)
        })
        .await;
        assert_eq!(artist.begun.load(SeqCst), 4);
        // Both come from memory; afterwards two new ones are drawn ahead.
        for _ in 0..2 {
            studio.draw(prefix(1)).await.unwrap();
        }
        until("three are there again", || {
            studio.0.ahead().len() == 3 && !studio.0.drawing_ahead.load(SeqCst)
        })
        .await;
        assert_eq!(artist.begun.load(SeqCst), 6);
    }

    #[tokio::test]
    async fn a_captcha_is_spoken_once() {
        let (studio, artist) = studio(0, 10);
        artist.allow(2);
        let captcha = CaptchaId::new(testing::START, &[7; 10]);
        let both = futures_util::join!(
            studio.speak(prefix(1), captcha, "kpt4x".to_owned()),
            studio.speak(prefix(2), captcha, "kpt4x".to_owned())
        );
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (b"sound".to_vec(), b"sound".to_vec()));
        studio.speak(prefix(1), captcha, "kpt4x".to_owned()).await.unwrap();
        assert_eq!(artist.begun.load(SeqCst), 1);
        studio
            .speak(prefix(1), CaptchaId::new(testing::START, &[8; 10]), "kpt4x".to_owned())
            .await
            .unwrap();
        assert_eq!(artist.begun.load(SeqCst), 2);
    }
}
