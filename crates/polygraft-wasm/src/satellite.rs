//! Threads without shared memory, as JavaScript drives them: the owner's side of a job, and a satellite.
//!
//! Whoever owns the [`Model`] asks it for parcels, posts them, and hands the answers back; what to share, and when, is
//! the engine's business (`polygraft::tasks`), how bytes travel is JavaScript's.

use crate::engine::{Core, Host, Job};
use crate::failure::{Failure, Result};
use crate::{Folder, Loader, Model, loading, now, throw};
use polygraft::share;
use polygraft::tasks::{Encode, Engine};
use wasm_bindgen::prelude::*;

impl Job {
    fn encode(&mut self) -> &mut Encode<Host> {
        match self {
            Self::Embed(e) => &mut e.encode,
            Self::Rerank(t) => t.encode(),
            Self::Index(t) => t.encode(),
            Self::Search(t, _) => t.encode(),
            Self::Language(t, _) => t.encode(),
        }
    }
}

impl Core {
    /// How many satellites compute along. While a GPU takes the calls there are none: rows of one call all come from
    /// one device.
    pub(crate) fn set_satellites(&mut self, count: usize) {
        self.satellites = count;
        self.count_satellites();
    }

    /// Brings the engine's number of satellites up to date, when a GPU has come or gone.
    pub(crate) fn count_satellites(&mut self) {
        let count = if self.engine.session.backend().shares() { 0 } else { self.satellites };
        self.engine.set_satellites(count);
    }

    fn encoding(&mut self, job: u32) -> Result<(&mut Encode<Host>, &mut Engine<Host>)> {
        let (job, _) = self.jobs.get_mut(&job).ok_or_else(|| crate::engine::no_job(job))?;
        Ok((job.encode(), &mut self.engine))
    }

    /// A parcel for satellite `satellite`; `None` when it shall have none now.
    pub(crate) fn share(&mut self, job: u32, satellite: usize) -> Result<Option<Vec<u8>>> {
        let (encode, engine) = self.encoding(job)?;
        Ok(encode.share(engine, satellite)?)
    }

    /// Takes an answer; gives whether it was still awaited.
    pub(crate) fn take_in(&mut self, job: u32, answer: &[u8]) -> Result<bool> {
        let (encode, engine) = self.encoding(job)?;
        Ok(encode.take_in(engine, answer)?)
    }

    /// Takes back what `satellite` has not answered.
    pub(crate) fn take_back(&mut self, job: u32, satellite: usize) -> Result<()> {
        self.encoding(job)?.0.take_back(satellite);
        Ok(())
    }
}

#[wasm_bindgen]
impl Model {
    /// How many satellites compute along; 0 at first. They start without payloads.
    #[wasm_bindgen(js_name = setSatellites)]
    pub fn set_satellites(&mut self, count: u32) {
        self.0.set_satellites(count as usize);
    }

    /// A parcel of job `job` for satellite `satellite`, to be given to [`Satellite::take`]; empty when it shall have
    /// none now.
    ///
    /// # Errors
    /// Thrown for a row that the model cannot run.
    pub fn share(&mut self, job: u32, satellite: u32) -> Result<Vec<u8>, JsValue> {
        self.0.share(job, satellite as usize).map(Option::unwrap_or_default).map_err(throw)
    }

    /// Takes a satellite's answer; gives whether it was still awaited.
    ///
    /// # Errors
    /// Thrown for bytes that are no answer to what was asked.
    #[wasm_bindgen(js_name = takeIn)]
    pub fn take_in(&mut self, job: u32, answer: &[u8]) -> Result<bool, JsValue> {
        self.0.take_in(job, answer).map_err(throw)
    }

    /// Takes back what `satellite` has of job `job`: the owner computes it, a late answer is ignored.
    ///
    /// # Errors
    /// Thrown for a job that is not in flight.
    #[wasm_bindgen(js_name = takeBack)]
    pub fn take_back(&mut self, job: u32, satellite: u32) -> Result<(), JsValue> {
        self.0.take_back(job, satellite as usize).map_err(throw)
    }
}

#[wasm_bindgen]
impl Loader {
    /// The same for a satellite: the layers alone, without tables and tokenizer; `finishSatellite` in place of `finish`.
    ///
    /// # Errors
    /// As the constructor.
    #[wasm_bindgen(js_name = toSatellite)]
    pub fn to_satellite(files: Folder) -> Result<Self, JsValue> {
        loading::Loading::to_satellite(files.0).map(Self).map_err(throw)
    }

    /// Indices of the tensors of `shard` that a satellite does without, once its header is here.
    #[must_use]
    pub fn tables(&self, shard: &str) -> Vec<u32> {
        self.0.tables(shard)
    }

    /// The satellite, once every tensor of the layers has passed.
    ///
    /// # Errors
    /// Thrown when tensors are still to come.
    #[wasm_bindgen(js_name = finishSatellite)]
    pub fn finish_satellite(self) -> Result<Satellite, JsValue> {
        let satellite = self.0.finish_satellite().map_err(throw)?;
        Ok(Satellite { satellite, answer: Vec::new() })
    }
}

/// Layers that compute along.
#[wasm_bindgen]
pub struct Satellite {
    satellite: share::Satellite<Host>,
    answer: Vec<u8>,
}

#[wasm_bindgen]
impl Satellite {
    /// Takes a parcel, which waits for its turn.
    ///
    /// # Errors
    /// Thrown for bytes that are no parcel.
    pub fn take(&mut self, parcel: &[u8]) -> Result<(), JsValue> {
        self.satellite.take(parcel).map_err(|e| throw(Failure::from(e)))
    }

    /// Works for about `ms` milliseconds; gives 0: there is more; 1: there is an answer to take; 2: there is nothing to
    /// do.
    ///
    /// # Errors
    /// Thrown when a parcel fails; all of them are dropped.
    pub fn step(&mut self, ms: f64) -> Result<u8, JsValue> {
        let end = now() + ms;
        match self.satellite.advance(&mut || now() >= end) {
            Ok(Some(answer)) => {
                self.answer = answer.to_bytes();
                Ok(1)
            }
            Ok(None) => Ok(if self.satellite.is_idle() { 2 } else { 0 }),
            Err(error) => {
                self.satellite.clear();
                Err(throw(Failure::from(error)))
            }
        }
    }

    /// The answer, once.
    #[wasm_bindgen(js_name = takeAnswer)]
    pub fn take_answer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.answer)
    }

    /// Drops all parcels.
    pub fn clear(&mut self) {
        self.satellite.clear();
    }

    /// Bytes held for layers and packed payloads.
    #[must_use]
    pub fn weights(&self) -> f64 {
        self.satellite.memory() as f64
    }
}
