//! The requests that are being drawn: their jobs, their pictures so far, and who waits for them.
//! Calls the pipeline and fences its panics; does not decide what steps next.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use super::awaiting::Reply;
use super::snapshots::{Begun, SnapshotSender, pack};
use super::{DrawError, DrawRequest, Drawn, EngineMetrics, Preview, PreviewSender, Timings};
use crate::pipeline::{Picture, PictureRequest, Pipeline, PipelineError, WornAdapter};
use crate::scheduler::{JobId, PipelineId, RequestId};

/// One client's request.
struct Drawing {
    /// `x-request-id`
    name: Option<Arc<str>>,
    reply: Reply,
    arrival: Instant,
    started: bool,
    timings: Timings,
    told: Told,
    span: Span,
    /// In the order of seeds.
    jobs: Vec<JobId>,
    previews: Option<PreviewSender>,
    snapshots: Option<SnapshotSender>,
}

/// A job that has begun here.
pub(super) struct Encoded {
    /// How long its request has waited, when it is the first of its jobs.
    pub(super) queued: Option<Duration>,
    pub(super) resumed: Resumed,
}

/// Where a job has begun.
pub(super) enum Resumed {
    New,
    /// After so many steps that were taken elsewhere.
    After(u32),
    /// With all of so many steps, for its snapshot could not be used.
    Anew(u32),
}

enum Stage<J> {
    Waiting,
    Running(J),
    Finished(Picture),
}

struct Job<J> {
    request: RequestId,
    picture: PictureRequest,
    stage: Stage<J>,
    /// Model calls so far, wherever.
    taken: u32,
    /// Until it is encoded.
    begun: Option<Begun>,
}

/// What a new drawing is told about its model.
pub(super) struct Told {
    pub(super) pipeline: PipelineId,
    pub(super) digest: String,
    pub(super) text_tokens: u32,
    pub(super) picture_tokens: u64,
    pub(super) image_tokens: u64,
    pub(super) warning: Option<String>,
}

pub(super) struct Drawings<J> {
    requests: BTreeMap<RequestId, Drawing>,
    jobs: BTreeMap<JobId, Job<J>>,
    /// The pod goes: what can go on elsewhere is not begun any more.
    leaving: bool,
}

impl<J> Drawings<J> {
    pub(super) fn new() -> Self {
        Self { requests: BTreeMap::new(), jobs: BTreeMap::new(), leaving: false }
    }

    pub(super) fn add(
        &mut self,
        id: RequestId,
        (request, worn): (&DrawRequest, &[WornAdapter]),
        jobs: Vec<JobId>,
        (told, begun): (Told, Vec<Option<Begun>>),
        reply: Reply,
    ) {
        for ((picture, begun), job) in pictures(request, worn).zip(begun).zip(&jobs) {
            let taken = begun.as_ref().map_or(0, |begun| begun.taken);
            self.jobs.insert(*job, Job { request: id, picture, stage: Stage::Waiting, taken, begun });
        }
        let (name, arrival, timings) = (request.sender.id.clone(), request.arrival, Timings::default());
        let previews = request.previews.clone();
        let snapshots = request.snapshots.clone();
        let (model, n, steps) = (&request.model, request.generation.n, request.generation.steps);
        let span = tracing::debug_span!(parent: None, "request", id = id.0, name = name.as_deref(), %model, n, steps);
        let drawing = Drawing { name, reply, arrival, started: false, timings, told, span, jobs, previews, snapshots };
        self.requests.insert(id, drawing);
    }

    /// Digests of all adapters that are drawn with.
    pub(super) fn worn(&self) -> Vec<String> {
        let worn = self.jobs.values().flat_map(|job| &job.picture.adapters);
        let worn: BTreeSet<&str> = worn.map(|adapter| adapter.digest.as_str()).collect();
        worn.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Requests whose caller has left.
    pub(super) fn abandoned(&self) -> Vec<RequestId> {
        self.requests.iter().filter(|(_, drawing)| drawing.reply.is_closed()).map(|(id, _)| *id).collect()
    }

    pub(super) fn named(&self, name: &str) -> Vec<RequestId> {
        let named = |(_, drawing): &(&RequestId, &Drawing)| drawing.name.as_deref() == Some(name);
        self.requests.iter().filter(named).map(|(id, _)| *id).collect()
    }

    pub(super) fn request_of(&self, job: JobId) -> Option<RequestId> {
        self.jobs.get(&job).map(|job| job.request)
    }

    /// Forgets the request and answers its caller, if there still is one.
    pub(super) fn fail(&mut self, id: RequestId, error: DrawError) {
        let Some(drawing) = self.requests.remove(&id) else { return };
        for job in &drawing.jobs {
            self.jobs.remove(job);
        }
        let _ = drawing.reply.send(Err(error)); // a caller that left wants no answer
    }

    pub(super) fn encode<P: Pipeline<Job = J>>(&mut self, pipeline: &P, id: JobId) -> Result<Encoded, PipelineError> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(Encoded { queued: None, resumed: Resumed::New }) };
        let _request = self.requests.get(&job.request).map(|drawing| drawing.span.clone().entered());
        let started = Instant::now();
        let (running, resumed) = job.start(pipeline)?;
        job.stage = Stage::Running(running);
        let Some(drawing) = self.requests.get_mut(&job.request) else { return Ok(Encoded { queued: None, resumed }) };
        drawing.timings.encode += started.elapsed();
        if std::mem::replace(&mut drawing.started, true) {
            return Ok(Encoded { queued: None, resumed });
        }
        drawing.timings.queue = started.saturating_duration_since(drawing.arrival);
        Ok(Encoded { queued: Some(drawing.timings.queue), resumed })
    }

    /// One model call for all of these, and how long it took.
    pub(super) fn step<P: Pipeline<Job = J>>(
        &mut self,
        pipeline: &P,
        ids: &[JobId],
    ) -> Result<Duration, PipelineError> {
        let mut taken = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            if let Stage::Running(running) = std::mem::replace(&mut job.stage, Stage::Waiting) {
                taken.push((*id, running));
            }
        }
        let started = Instant::now();
        let mut batch: Vec<&mut J> = taken.iter_mut().map(|(_, running)| running).collect();
        let result = fenced("denoise", || pipeline.denoise_step(&mut batch));
        let duration = started.elapsed();
        let mut requests = Vec::new();
        for (id, running) in taken {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.stage = Stage::Running(running);
            job.taken += u32::from(result.is_ok());
            requests.push(job.request);
        }
        requests.dedup();
        for id in requests {
            if let Some(drawing) = self.requests.get_mut(&id) {
                drawing.timings.denoise += duration;
            }
        }
        result.map(|()| duration)
    }

    /// Shows those of these jobs for which a preview is due after their step. One that fails is no loss to its picture.
    pub(super) fn preview<P: Pipeline<Job = J>>(&mut self, pipeline: &P, ids: &[JobId]) {
        for id in ids {
            let Some(Job { request, picture, stage: Stage::Running(running), taken, begun: _ }) = self.jobs.get(id)
            else {
                continue;
            };
            let Some(drawing) = self.requests.get_mut(request) else { continue };
            let Some(previews) = &drawing.previews else { continue };
            let Some(index) = previews.due(*taken, picture.model_calls()) else { continue };
            let started = Instant::now();
            match fenced("draw a preview", || pipeline.preview(running)) {
                Ok(Some(seen)) => {
                    let digest = drawing.told.digest.clone();
                    previews.send(Preview { request: picture.clone(), index, picture: seen, digest });
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(request = request.0, error = crate::chain(&error), "no preview"),
            }
            drawing.timings.decode += started.elapsed();
        }
    }

    /// Sends those of these jobs for which a snapshot is due after their step.
    pub(super) fn snapshot<P: Pipeline<Job = J>>(&mut self, pipeline: &P, ids: &[JobId], metrics: &EngineMetrics) {
        for id in ids {
            let Some(Job { request, picture, taken, .. }) = self.jobs.get(id) else { continue };
            let Some(drawing) = self.requests.get(request) else { continue };
            let calls = picture.model_calls();
            if drawing.snapshots.as_ref().is_some_and(|snapshots| snapshots.is_due(*taken, calls)) {
                self.send(pipeline, *id, metrics);
            }
        }
    }

    /// Sends what the request's running jobs have come to.
    pub(super) fn export<P: Pipeline<Job = J>>(&mut self, pipeline: &P, id: RequestId, metrics: &EngineMetrics) {
        let jobs = self.requests.get(&id).map(|drawing| drawing.jobs.clone()).unwrap_or_default();
        for job in jobs {
            self.send(pipeline, job, metrics);
        }
    }

    /// One that fails is no loss to its picture, only to what it is resumed from.
    fn send<P: Pipeline<Job = J>>(&self, pipeline: &P, id: JobId, metrics: &EngineMetrics) {
        let Some(Job { request, picture, stage: Stage::Running(running), taken, begun: _ }) = self.jobs.get(&id) else {
            return;
        };
        let Some(Drawing { told, jobs, snapshots: Some(snapshots), .. }) = self.requests.get(request) else { return };
        let Some(place) = jobs.iter().position(|job| *job == id) else { return };
        match fenced("export a job", || pipeline.export(running)) {
            Ok(exported) => {
                let bytes = pack(&told.digest, picture, *taken, &exported);
                metrics.snapshot_bytes.inc_by(bytes.len() as u64);
                snapshots.send(place as u32, bytes);
            }
            Err(error) => tracing::warn!(request = request.0, error = crate::chain(&error), "no snapshot"),
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Gives the requests that can go on elsewhere.
    pub(super) fn leave(&mut self) -> Vec<RequestId> {
        self.leaving = true;
        self.requests.iter().filter(|(_, drawing)| drawing.snapshots.is_some()).map(|(id, _)| *id).collect()
    }

    pub(super) fn pipeline(&self, id: RequestId) -> Option<PipelineId> {
        self.requests.get(&id).map(|drawing| drawing.told.pipeline)
    }

    /// All of its jobs.
    pub(super) fn has_begun(&self, id: RequestId) -> bool {
        let waits = |id: &JobId| matches!(self.jobs.get(id), Some(Job { stage: Stage::Waiting, .. }));
        self.requests.get(&id).is_some_and(|drawing| !drawing.jobs.iter().any(waits))
    }

    /// Decodes a job that has taken its last step, and answers when it was the request's last.
    pub(super) fn finish<P: Pipeline<Job = J>>(&mut self, pipeline: &P, id: JobId) -> Result<(), PipelineError> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        let Stage::Running(running) = &job.stage else { return Ok(()) };
        let started = Instant::now();
        let picture = fenced("decode", || pipeline.decode(running))?;
        job.stage = Stage::Finished(picture);
        let request = job.request;
        let Some(drawing) = self.requests.get_mut(&request) else { return Ok(()) };
        drawing.timings.decode += started.elapsed();
        let finished = |id: &JobId| matches!(self.jobs.get(id), Some(Job { stage: Stage::Finished(_), .. }));
        if drawing.jobs.iter().all(finished) {
            self.answer(request);
        }
        Ok(())
    }

    fn answer(&mut self, id: RequestId) {
        let Some(drawing) = self.requests.remove(&id) else { return };
        let Drawing { name: _, reply, arrival: _, started: _, timings, told, span, jobs, previews: _, snapshots: _ } =
            drawing;
        let Timings { queue, encode, denoise, decode } = timings;
        tracing::debug!(parent: &span, ?queue, ?encode, ?denoise, ?decode, "request drawn");
        let Told { pipeline: _, digest, text_tokens, picture_tokens, image_tokens, warning } = told;
        let mut pictures = Vec::with_capacity(jobs.len());
        for id in jobs {
            if let Some(Job { picture: request, stage: Stage::Finished(picture), .. }) = self.jobs.remove(&id) {
                pictures.push((request, picture));
            }
        }
        let _ = reply.send(Ok(Drawn { digest, pictures, timings, text_tokens, picture_tokens, image_tokens, warning }));
    }
}

impl<J> Job<J> {
    /// From the beginning, or where it was elsewhere. What was exported there and can't be used is as if it were not.
    fn start<P: Pipeline<Job = J>>(&mut self, pipeline: &P) -> Result<(J, Resumed), PipelineError> {
        let mut resumed = Resumed::New;
        if let Some(Begun { taken, exported }) = self.begun.take() {
            match fenced("resume a job", || pipeline.resume(&self.picture, &exported)) {
                Ok(running) => return Ok((running, Resumed::After(taken))),
                Err(error) => {
                    tracing::warn!(request = self.request.0, error = crate::chain(&error), "drawn anew");
                    self.taken = 0;
                    resumed = Resumed::Anew(self.picture.model_calls());
                }
            }
        }
        Ok((fenced("encode", || pipeline.encode(&self.picture))?, resumed))
    }
}

/// A request for `n` pictures, as `n` pictures with seeds counted up.
pub(super) fn pictures(request: &DrawRequest, worn: &[WornAdapter]) -> impl Iterator<Item = PictureRequest> {
    let generation = &request.generation;
    (0..generation.n).map(move |i| PictureRequest {
        prompt: generation.prompt.clone(),
        negative_prompt: generation.negative_prompt.clone(),
        seed: request.seed.wrapping_add(i.into()),
        steps: generation.steps,
        guidance_scale: generation.guidance_scale,
        size: generation.size,
        sampler: generation.sampler,
        edit: request.edit.clone(),
        adapters: worn.to_vec(),
    })
}

/// A panic in model code is that request's failure, not the pod's.
fn fenced<T>(step: &'static str, call: impl FnOnce() -> Result<T, PipelineError>) -> Result<T, PipelineError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
        Err(PipelineError::Failed { step, source: format!("the pipeline panicked: {text}").into() })
    })
}
