//! Whether a request is drawn by this pod, and what is said when it is not.

use std::time::Instant;

use easel_api::ImageSize;
use easel_api::images::{Task, refusal_of};

use super::Engine;
use crate::engine::awaiting::Reply;
use crate::engine::drawing::{Told, pictures};
use crate::engine::residency::{Door, Loaded};
use crate::engine::snapshots::{Begun, unpack};
use crate::engine::{DrawError, DrawRequest};
use crate::pipeline::{PictureRequest, Pipeline, WornAdapter};
use crate::scheduler::{JobId, NewRequest, PipelineId, RequestId, Unadmitted};

type Placed = (RequestId, Vec<JobId>, Told, Vec<Option<Begun>>);

impl<P: Pipeline> Engine<P> {
    pub(super) fn admit(&mut self, request: Box<DrawRequest>, reply: Reply) {
        match self.residents.door(&request.model, self.awaiting.due_of(&request)) {
            Door::Open => self.dress(request, reply),
            Door::Waits if self.has_place(&request) => self.awaiting.push(request, reply),
            Door::Waits => drop(reply.send(Err(self.queue_full()))),
            Door::Shut => drop(reply.send(Err(DrawError::NotResident))),
        }
    }

    /// A request and what it wears, which is in memory.
    pub(super) fn place(&mut self, request: &DrawRequest, worn: &[WornAdapter], reply: Reply) {
        match self.admitted(request, worn) {
            Ok((id, jobs, told, begun)) => self.drawings.add(id, (request, worn), jobs, (told, begun), reply),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Those whose model is on the device now, or answers no longer; gives their number.
    pub(super) fn admit_awaited(&mut self) -> usize {
        let mut admitted = 0;
        for model in self.awaiting.models() {
            let residents = &self.residents;
            let waits = |due| matches!(residents.door(&model, due), Door::Waits);
            for (request, reply) in self.awaiting.take(&model, |due| !waits(due)) {
                self.admit(request, reply);
                admitted += 1;
            }
        }
        admitted
    }

    fn admitted(&mut self, request: &DrawRequest, worn: &[WornAdapter]) -> Result<Placed, DrawError> {
        if self.drawings.is_leaving() && request.snapshots.is_some() {
            return Err(DrawError::Moved);
        }
        let pipeline = self.residents.serving(&request.model).ok_or(DrawError::NotResident)?;
        if !self.has_place(request) {
            return Err(self.queue_full());
        }
        self.measure_room();
        let loaded = self.residents.loaded(pipeline).ok_or(DrawError::NotResident)?;
        let picture = pictures(request, worn).next().ok_or(DrawError::Failed)?;
        fits(loaded.pipeline.tasks(), &picture)?;
        let key = loaded.pipeline.batch_key(&picture);
        let told = told(pipeline, loaded, request, &picture);
        self.scheduler.memory_mut().decodes(pipeline, loaded.pipeline.decode_memory());
        let begun = self.begun(request, worn, &told.digest);
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let new = NewRequest {
            id,
            tenant: request.sender.tenant.clone(),
            class: request.sender.priority,
            pipeline,
            key,
            jobs: request.generation.n,
            steps: picture.model_calls(),
            taken: begun.iter().map(|begun| begun.as_ref().map_or(0, |begun| begun.taken)).collect(),
            deadline: request.deadline,
        };
        match self.scheduler.admit(&new, request.arrival.min(Instant::now())) {
            Ok(jobs) => {
                self.adapters.is_worn(pipeline, worn);
                self.residents.used(pipeline, None);
                Ok((id, jobs, told, begun))
            }
            Err(unadmitted) => Err(self.refusal(unadmitted, pipeline, &picture)),
        }
    }

    /// Of each picture, where another pod has come.
    fn begun(&self, request: &DrawRequest, worn: &[WornAdapter], digest: &str) -> Vec<Option<Begun>> {
        let begun = |(place, picture): (u32, PictureRequest)| {
            let snapshot = request.begun.get(&place)?;
            let begun = unpack(digest, &picture, snapshot);
            if begun.is_none() {
                self.metrics.snapshots_refused.inc();
            }
            begun
        };
        (0..).zip(pictures(request, worn)).map(begun).collect()
    }

    fn refusal(&self, unadmitted: Unadmitted, pipeline: PipelineId, picture: &PictureRequest) -> DrawError {
        match unadmitted {
            Unadmitted::QueueFull { .. } => self.queue_full(),
            Unadmitted::TooLarge { need_bytes, free_bytes } => {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                let advice = match self.fitting(pipeline, picture) {
                    Some(size) => format!("{size} would fit"),
                    None => "no size of these proportions would fit".into(),
                };
                DrawError::TooLarge(format!(
                    "a picture of {} needs {} MiB beside the models of this pod, which leave {}: {advice}; or give the \
                     pool's pods more memory",
                    picture.size,
                    mib(need_bytes),
                    free_bytes >> 20
                ))
            }
        }
    }

    /// The largest size of about the same proportions that there is memory for.
    fn fitting(&self, pipeline: PipelineId, picture: &PictureRequest) -> Option<ImageSize> {
        let loaded = self.residents.loaded(pipeline)?;
        let (width, height) = (picture.size.width(), picture.size.height());
        let whole = ImageSize::MULTIPLE;
        let smaller = (1..width / whole).rev().filter_map(|columns| {
            let rows = (columns * height).div_euclid(width).max(1);
            ImageSize::new(columns * whole, rows * whole).ok()
        });
        let fits = |size: &ImageSize| {
            let key = loaded.pipeline.batch_key(&PictureRequest { size: *size, ..picture.clone() });
            self.scheduler.too_large(pipeline, key).is_none()
        };
        smaller.into_iter().find(fits)
    }
}

fn told<P: Pipeline>(
    pipeline: PipelineId,
    loaded: &Loaded<P>,
    request: &DrawRequest,
    picture: &PictureRequest,
) -> Told {
    let key = loaded.pipeline.batch_key(picture);
    let positions = u64::from(key.height) * u64::from(key.width);
    let tokens = |text: &str| if text.is_empty() { 0 } else { loaded.pipeline.text_tokens(text) };
    Told {
        pipeline,
        digest: loaded.about.checkpoint.digest.clone(),
        text_tokens: tokens(&picture.prompt) + tokens(&picture.negative_prompt),
        picture_tokens: if picture.edit.is_some() { positions } else { 0 },
        image_tokens: positions * u64::from(request.generation.n),
        warning: loaded.pipeline.vocabulary().and_then(|words| words.warning(&picture.prompt)),
    }
}

fn fits(tasks: &[Task], picture: &PictureRequest) -> Result<(), DrawError> {
    let refusal = refusal_of(tasks, picture.task());
    refusal.map_or(Ok(()), |message| Err(DrawError::Unsupported(message.into())))
}
