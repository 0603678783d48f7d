//! One run on a page, for people.

use std::fmt::Write;

use super::report::{Report, Share};

pub(crate) fn page(run: &Report) -> String {
    let mut page = String::new();
    let rho = run.rho.map_or("arrivals of the trace".into(), |rho| format!("Poisson arrivals at rho {rho}"));
    line(&mut page, "policy", &format!("{} (seed {}, {} requests, {rho})", run.policy, run.seed, run.requests));
    line(
        &mut page,
        "in time",
        &format!("{} of requests, {} of the work", percent(run.slo_attainment), percent(run.weighted_attainment)),
    );
    let drawn = &run.drawn;
    if let (Some(rejected), Some(late), Some(lost)) = (drawn.rejected, drawn.late, drawn.lost) {
        line(&mut page, "missed", &format!("{rejected} refused, {late} late, {lost} lost"));
    }
    for share in &run.by_images {
        let title = format!("  {} image{}", share.images.unwrap_or(0), if share.images == Some(1) { "" } else { "s" });
        line(&mut page, &title, &of(share));
    }
    if let Some(worst) = &run.worst_model {
        line(
            &mut page,
            "worst model",
            &format!("{}, of those with 100 requests and more: {}", worst.model, of(&worst.share)),
        );
    }
    if let Some(tail) = &run.tail {
        line(&mut page, "all other models", &of(tail));
    }
    if let (Some(p50), Some(p95), Some(p99), Some(mean)) = (drawn.p50_s, drawn.p95_s, drawn.p99_s, drawn.mean_s) {
        line(&mut page, "seconds", &format!("p50 {p50:.1}, p95 {p95:.1}, p99 {p99:.1}, mean {mean:.1}"));
    }
    if let (Some(switches), Some(share), Some(fetches)) = (drawn.switches, drawn.switch_share, drawn.fetches_ahead) {
        line(
            &mut page,
            "switches",
            &format!("{switches}, {share:.2} for each drawn request; {fetches} loads ahead of demand"),
        );
    }
    if let (Some(busy), Some(load), Some(hours)) = (drawn.gpu_busy_share, drawn.load_share, drawn.gpu_hours) {
        line(
            &mut page,
            "GPUs",
            &format!("{hours:.1} hours, {} busy, {} of it all loading", percent(busy), percent(load)),
        );
    }
    money(&mut page, run);
    page
}

fn money(page: &mut String, run: &Report) {
    let drawn = &run.drawn;
    let (Some(cost), Some(drawing), Some(loading), Some(idle), Some(image)) =
        (drawn.cost_usd, drawn.drawing_usd, drawn.loading_usd, drawn.idle_usd, drawn.usd_per_image_in_slo)
    else {
        return;
    };
    line(page, "dollars", &format!("{cost:.2} = {drawing:.2} drawing + {loading:.2} loading + {idle:.2} idle"));
    line(page, "", &format!("{image:.5} for each image in time"));
}

fn line(page: &mut String, title: &str, text: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(page, "{title:18}{text}");
}

fn of(share: &Share) -> String {
    format!("{} of {}", percent(share.slo_attainment), share.requests)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
