//! What the engine promises when a pipeline misbehaves, with a pipeline that does so on demand.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, Sender, channel};

use easel_api::engine::{Checkpoint, DesiredModel, ModelState, Source, Tier};
use easel_api::images::{Quality, SamplerKind, Task};
use easel_checkpoints::digest::Listing;
use easel_checkpoints::{Effort, Files, Settings, Timeouts};
use prometheus_client::registry::Registry;
use std::sync::{Arc, Barrier, Mutex};

use super::*;
use crate::pipeline::{BatchKey, LoadError, Pipeline, PipelineError};
use crate::vocabulary::Vocabulary;

/// Does what the prompt says; each step needs a permit. A picture's bytes say its seed and steps, added up.
struct Moody {
    permits: Arc<Mutex<Receiver<()>>>,
    steps: Arc<AtomicUsize>,
}

struct MoodyLoader {
    permits: Arc<Mutex<Receiver<()>>>,
    steps: Arc<AtomicUsize>,
    /// Passed when the load of a folder called `held` begins, and when it ends.
    gate: Arc<Barrier>,
}

impl Loader for MoodyLoader {
    type Pipeline = Moody;

    fn load(&self, files: &Files) -> Result<Moody, LoadError> {
        assert!(!files.path("").ends_with("panics"), "the loader panics");
        if files.path("").ends_with("held") {
            self.gate.wait();
            self.gate.wait();
        }
        Ok(Moody { permits: self.permits.clone(), steps: self.steps.clone() })
    }

    fn load_parked(&self, files: &Files) -> Result<Moody, LoadError> {
        self.load(files)
    }

    fn has_host_tier(&self) -> bool {
        true
    }

    fn load_adapter(&self, _: &Files, (): &()) -> Result<(), LoadError> {
        Ok(())
    }

    fn device(&self) -> String {
        "moody".into()
    }
}

impl Pipeline for Moody {
    type Job = PictureRequest;
    type Adapter = ();
    type Layers = ();
    type Parked = Self;

    fn park(self) -> Result<Self, PipelineError> {
        Ok(self)
    }

    fn wake(parked: Self) -> Result<Self, PipelineError> {
        Ok(parked)
    }

    fn parked_bytes(parked: &Self) -> u64 {
        parked.memory_bytes()
    }

    fn layers(&self) {}

    fn hold_adapter(&mut self, _: &str, (): ()) {}

    fn drop_adapter(&mut self, _: &str) {}

    fn adapter_bytes((): &()) -> u64 {
        10
    }

    fn batch_key(&self, request: &PictureRequest) -> BatchKey {
        let side = request.size.width() / 8;
        BatchKey { input_channels: 4, height: side, width: side, text_length: 77, rows: 2 }
    }

    fn encode(&self, request: &PictureRequest) -> Result<PictureRequest, PipelineError> {
        match request.prompt.as_str() {
            "too long" => Err(PipelineError::Unsupported("the prompt is too long for this model".into())),
            "panic in encode" => panic!("encode"),
            _ => Ok(request.clone()),
        }
    }

    fn denoise_step(&self, batch: &mut [&mut PictureRequest]) -> Result<(), PipelineError> {
        if batch[0].prompt != "a photo" {
            let _ = self.permits.lock().unwrap().recv();
            self.steps.fetch_add(1, SeqCst);
        }
        assert!(!batch.iter().any(|job| job.prompt == "panic in step"), "a step panics");
        for job in batch.iter_mut() {
            job.seed += 1;
        }
        Ok(())
    }

    /// The seed, which has counted the steps.
    fn export(&self, job: &PictureRequest) -> Result<Vec<u8>, PipelineError> {
        assert!(job.prompt != "panic in export", "an export panics");
        Ok(job.seed.to_be_bytes().into())
    }

    fn resume(&self, request: &PictureRequest, exported: &[u8]) -> Result<PictureRequest, PipelineError> {
        let seed = exported.try_into().map(u64::from_be_bytes);
        let seed = seed.map_err(|_| PipelineError::Snapshot("not eight bytes".into()))?;
        Ok(PictureRequest { seed, ..request.clone() })
    }

    fn decode(&self, job: &PictureRequest) -> Result<Picture, PipelineError> {
        if job.prompt == "not finite" {
            return Err(PipelineError::NotFinite);
        }
        Ok(Picture { size: job.size, rgb: vec![job.seed as u8; 3 * job.size.pixels() as usize] })
    }

    /// Grey by the steps so far.
    fn preview(&self, job: &PictureRequest) -> Result<Option<Picture>, PipelineError> {
        assert!(job.prompt != "panic in preview", "a preview panics");
        Ok(Some(Picture { size: job.size, rgb: vec![job.seed as u8; 3 * job.size.pixels() as usize] }))
    }

    fn tasks(&self) -> &[Task] {
        &[Task::Generate]
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        None
    }

    fn text_tokens(&self, _: &str) -> u32 {
        77
    }

    fn memory_bytes(&self) -> u64 {
        1
    }
}

type Answer = tokio::task::JoinHandle<Result<Drawn, DrawError>>;

struct World {
    engine: EngineHandle,
    permits: Sender<()>,
    gate: Arc<Barrier>,
    /// Computed, but for warm-ups.
    steps: Arc<AtomicUsize>,
    folder: tempfile::TempDir,
    model: DesiredModel,
}

fn desired(folder: &Path) -> DesiredModel {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model_index.json"), "{}").unwrap();
    let digest = Listing::read(folder).unwrap().digest(|_, _| true).unwrap().unwrap().to_string();
    DesiredModel {
        id: ModelId("art/moody".into()),
        checkpoint: Checkpoint {
            source: Source::Folder { path: folder.to_str().unwrap().to_owned() },
            digest,
            signature: None,
        },
        access: None,
        defaults: ModelDefaults {
            steps: 2,
            guidance_scale: 5.0,
            size: "16x16".parse().unwrap(),
            sampler: SamplerKind::Ddim,
        },
        limits: ModelLimits { max_steps: 10, max_pixels: 1 << 20, max_images: 10 },
        tier: Tier::Device,
        adapters: Vec::new(),
    }
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let model = desired(&folder.path().join("model"));
    let (permits, take) = channel();
    let flags = EngineFlags {
        max_batch: 4,
        queue_limit: 8,
        patience_seconds: 30,
        memory_bytes: 0,
        host_bytes: 0,
        activation_kib: 0,
        adapter_bytes: 25,
    };
    let metrics = EngineMetrics::register(&mut Registry::default());
    let fetcher = Fetcher::new(Settings {
        cache_dir: folder.path().join("cache"),
        cache_bytes: None,
        keys: Vec::new(),
        effort: Effort::default(),
        timeouts: Timeouts::default(),
    });
    let steps = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Barrier::new(2));
    let loader = MoodyLoader { permits: Arc::new(Mutex::new(take)), steps: steps.clone(), gate: gate.clone() };
    let engine = EngineHandle::start(loader, &flags, fetcher, metrics).unwrap();
    let world = World { engine, permits, gate, steps, folder, model };
    world.hold(1, vec![world.model.clone()]).await;
    world.until(|snapshot| snapshot.served.len() == 1).await;
    world
}

impl World {
    async fn hold(&self, sequence: u64, models: Vec<DesiredModel>) {
        self.engine.hold(Residency { generation: Generation { term: 1, sequence }, models }).await.unwrap();
    }

    async fn until(&self, wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let mut watch = self.engine.watch();
        let found = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(wanted)).await;
        found.expect("never came").expect("the engine has stopped").clone()
    }

    fn draw(&self, prompt: &str, size: &str) -> Answer {
        self.draw_named(prompt, size, None)
    }

    /// With an `x-request-id`.
    fn draw_named(&self, prompt: &str, size: &str, id: Option<&str>) -> Answer {
        self.begin(self.request(prompt, size, id))
    }

    fn request(&self, prompt: &str, size: &str, id: Option<&str>) -> DrawRequest {
        let defaults = &self.model.defaults;
        let generation = images::Generation {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            n: 1,
            size: size.parse().unwrap(),
            picture_size: size.parse().unwrap(),
            quality: Quality::Auto,
            steps: defaults.steps,
            guidance_scale: defaults.guidance_scale,
            sampler: defaults.sampler,
            seed: None,
            adapters: Vec::new(),
        };
        let (model, arrival) = (self.model.id.clone(), Instant::now());
        let sender = crate::engine::Sender { id: id.map(Into::into), ..Default::default() };
        DrawRequest {
            model,
            generation,
            edit: None,
            seed: 0,
            arrival,
            deadline: None,
            sender,
            previews: None,
            snapshots: None,
            begun: BTreeMap::new(),
        }
    }

    fn begin(&self, request: DrawRequest) -> Answer {
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.draw(request).await })
    }

    fn permit(&self, steps: usize) {
        (0..steps).for_each(|_| self.permits.send(()).unwrap());
    }
}

#[tokio::test]
async fn a_panic_in_a_step_fails_the_requests_of_that_batch_only() {
    let world = world().await;
    let (bad, beside) = (world.draw("panic in step", "16x16"), world.draw("beside", "16x16"));
    // Both wait behind one step that is held, so that they share the next.
    let other = world.draw("elsewhere", "32x32");
    world.permit(20);
    assert_eq!(bad.await.unwrap().unwrap_err(), DrawError::Failed);
    other.await.unwrap().unwrap();
    let _ = beside.await.unwrap(); // failed if it was in that batch
    world.draw("after", "16x16").await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_model_can_not_draw_is_said_and_leaves_its_neighbours_alone() {
    let world = world().await;
    world.permit(20);
    let (long, panics, fine) =
        (world.draw("too long", "16x16"), world.draw("panic in encode", "16x16"), world.draw("fine", "16x16"));
    let said = DrawError::Unsupported("the prompt is too long for this model".into());
    assert_eq!(long.await.unwrap().unwrap_err(), said);
    assert_eq!(panics.await.unwrap().unwrap_err(), DrawError::Failed);
    assert_eq!(fine.await.unwrap().unwrap().text_tokens, 77);
    assert_eq!(world.draw("not finite", "16x16").await.unwrap().unwrap_err(), DrawError::Failed);
    world.until(|snapshot| snapshot.report.running + snapshot.report.waiting == 0).await;
}

#[tokio::test]
async fn a_picture_gets_as_many_model_calls_as_its_sampler_needs() {
    let mut world = world().await;
    world.permit(20);
    for (sampler, calls) in [(SamplerKind::Euler, 2), (SamplerKind::Heun, 3)] {
        world.model.defaults.sampler = sampler;
        let drawn = world.draw("counted", "16x16").await.unwrap().unwrap();
        assert_eq!(drawn.pictures[0].1.rgb[0], calls, "{sampler}");
    }
}

#[tokio::test]
async fn previews_come_at_even_distances_and_one_that_panics_is_missing_from_its_picture_only() {
    let mut world = world().await;
    world.model.defaults.steps = 9;
    let (to, mut from) = previews(2);
    let drawing = world.begin(DrawRequest { previews: Some(to), ..world.request("seen", "16x16", None) });
    for (index, steps) in [(0, 3), (1, 6)] {
        world.permit(3);
        let preview = tokio::time::timeout(Duration::from_secs(20), from.next()).await.expect("no preview came");
        assert_eq!((preview.index, preview.picture.rgb[0]), (index, steps));
    }
    world.permit(3);
    assert_eq!(drawing.await.unwrap().unwrap().pictures[0].1.rgb[0], 9);
    let (to, mut from) = previews(2);
    world.permit(9);
    let panics = world.begin(DrawRequest { previews: Some(to), ..world.request("panic in preview", "16x16", None) });
    assert_eq!(panics.await.unwrap().unwrap().pictures[0].1.rgb[0], 9);
    assert!(futures::poll!(Box::pin(from.next())).is_pending());
}

/// The newest snapshot of the only picture.
async fn newest(from: &mut SnapshotReceiver) -> Bytes {
    let (picture, bytes) = tokio::time::timeout(Duration::from_secs(20), from.next()).await.expect("no snapshot came");
    assert_eq!(picture, 0);
    bytes
}

#[tokio::test]
async fn what_is_handed_over_goes_on_elsewhere_without_taking_a_step_twice() {
    let mut world = world().await;
    world.model.defaults.steps = 9;
    let (to, mut from) = snapshots(3);
    let drawing = world.begin(DrawRequest { snapshots: Some(to), ..world.request("moves", "16x16", None) });
    world.permit(3);
    let third = newest(&mut from).await;
    world.engine.hand_over().await; // before the fourth step, or while it is held
    world.permit(1);
    assert_eq!(drawing.await.unwrap().unwrap_err(), DrawError::Moved);
    let (last, taken) = (newest(&mut from).await, world.steps.load(SeqCst));
    world.until(|snapshot| snapshot.report.running == 0).await;
    for (begun, permits, steps) in [(last, 5, 9 - taken), (third, 6, 6)] {
        let before = world.steps.load(SeqCst);
        world.permit(permits);
        let begun = BTreeMap::from([(0, begun)]);
        let drawn = world.begin(DrawRequest { begun, ..world.request("moves", "16x16", None) }).await;
        assert_eq!(drawn.unwrap().unwrap().pictures[0].1.rgb[0], 9, "as without");
        assert_eq!(world.steps.load(SeqCst) - before, steps);
    }
}

#[tokio::test]
async fn what_is_nearly_done_is_drawn_before_the_pod_goes_and_nothing_new_is_begun() {
    let mut world = world().await;
    world.model.defaults.steps = 4;
    let movable = |world: &World| DrawRequest { snapshots: Some(snapshots(0).0), ..world.request("a", "16x16", None) };
    let drawing = world.begin(movable(&world));
    world.until(|snapshot| snapshot.report.running == 1).await;
    world.permit(2);
    while world.steps.load(SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    world.engine.hand_over().await;
    world.permit(2);
    assert_eq!(drawing.await.unwrap().unwrap().pictures[0].1.rgb[0], 4);
    assert_eq!(world.begin(movable(&world)).await.unwrap().unwrap_err(), DrawError::Moved);
    world.permit(4);
    let stays = world.draw("stays", "16x16").await.unwrap().unwrap();
    assert_eq!(stays.pictures[0].1.rgb[0], 4, "who can't go elsewhere is served to the end");
}

#[tokio::test]
async fn a_snapshot_that_can_not_be_used_costs_its_steps_and_nothing_else() {
    let mut world = world().await;
    world.model.defaults.steps = 9;
    let asked = world.request("begins anew", "16x16", None);
    let picture = PictureRequest {
        prompt: "begins anew".into(),
        steps: 9,
        ..load::default_picture(&world.model, &[images::Task::Generate])
    };
    let picture = PictureRequest { size: "16x16".parse().unwrap(), ..picture };
    let digest = &world.model.checkpoint.digest;
    let unreadable = snapshots::pack(digest, &picture, 3, b"x");
    let readable = snapshots::pack(digest, &picture, 3, &3_u64.to_be_bytes());
    let of_another = snapshots::pack("sha256:other", &picture, 3, &3_u64.to_be_bytes());
    for (begun, steps) in [(readable, 6), (unreadable, 9), (of_another, 9), (Bytes::from_static(b"?"), 9)] {
        let before = world.steps.load(SeqCst);
        world.permit(steps);
        let begun = BTreeMap::from([(0, begun)]);
        let drawn = world.begin(DrawRequest { begun, ..asked.clone() }).await.unwrap().unwrap();
        assert_eq!((drawn.pictures[0].1.rgb[0], world.steps.load(SeqCst) - before), (9, steps));
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed_before_the_next_step() {
    let world = world().await;
    let drawing = world.draw("left", "16x16");
    world.until(|snapshot| snapshot.report.running == 1).await;
    drawing.abort();
    assert!(drawing.await.unwrap_err().is_cancelled());
    world.permit(5); // the first ends the step that is held; the second is never begun
    world.until(|snapshot| snapshot.report.running == 0).await;
    assert_eq!(world.steps.load(SeqCst), 1);
}

#[tokio::test]
async fn a_request_that_is_cancelled_by_its_id_is_not_stepped_again_and_leaves_its_neighbour_alone() {
    let world = world().await;
    let cancelled = world.draw_named("cancelled", "16x16", Some("a"));
    world.until(|snapshot| snapshot.report.running == 1).await;
    let neighbour = world.draw_named("neighbour", "32x32", Some("b"));
    let waits = world.draw_named("waits", "16x16", Some("a"));
    let [unknown, cancel] = ["c", "a"].map(|id| {
        let engine = world.engine.clone();
        tokio::spawn(async move { engine.cancel(id).await })
    });
    // Each has sent its command once it has been polled, so all are there when the held step ends.
    tokio::task::yield_now().await;
    world.permit(1);
    assert_eq!(unknown.await.unwrap(), Some(0));
    assert_eq!(cancel.await.unwrap(), Some(2));
    world.permit(10);
    for gone in [cancelled, waits] {
        assert_eq!(gone.await.unwrap().unwrap_err(), DrawError::Cancelled);
    }
    neighbour.await.unwrap().unwrap();
    assert_eq!(world.steps.load(SeqCst), 1 + 2, "the step that was held, and the neighbour's own");
}

#[tokio::test]
async fn a_loader_that_panics_refuses_the_model_and_goes_on() {
    let world = world().await;
    let panics = desired(&world.folder.path().join("panics"));
    let panics = DesiredModel { id: ModelId("art/panics".into()), ..panics };
    world.hold(2, vec![panics, world.model.clone()]).await;
    let refused = |snapshot: &Snapshot| matches!(snapshot.report.models[0].state, ModelState::Refused { .. });
    assert_eq!(world.until(refused).await.served.len(), 1);
    let next = desired(&world.folder.path().join("next"));
    let next = DesiredModel { id: ModelId("art/next".into()), ..next };
    world.hold(3, vec![next]).await;
    world.until(|snapshot| snapshot.served.contains_key(&ModelId("art/next".into()))).await;
}

#[tokio::test]
async fn a_load_that_goes_on_stops_no_step() {
    let mut world = world().await;
    let held = desired(&world.folder.path().join("held"));
    let held = DesiredModel { id: ModelId("art/held".into()), ..held };
    world.model.defaults.steps = 10;
    let drawing = world.draw("beside", "16x16");
    world.until(|snapshot| snapshot.report.running == 1).await;
    // The engine hears the residency when the step that waits has ended, and orders the load after the next.
    tokio::join!(world.hold(2, vec![world.model.clone(), held]), async { world.permit(2) });
    world.gate.wait();
    world.permit(8);
    drawing.await.unwrap().unwrap();
    assert_eq!(world.steps.load(SeqCst), 10);
    assert_eq!(world.engine.snapshot().served.len(), 1, "the load is not over");
    world.gate.wait();
    world.until(|snapshot| snapshot.served.len() == 2).await;
}

#[tokio::test]
async fn the_engine_stops_when_the_last_handle_is_dropped() {
    let world = world().await;
    let mut watch = world.engine.watch();
    drop(world.engine);
    while watch.changed().await.is_ok() {}
}
