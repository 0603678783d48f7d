//! Policies beside each other, a row each, for people. Columns that nobody has a figure for are left out.

use super::sample::Sample;
use super::summary::Summary;

type Cell = fn(&Summary) -> Option<String>;

const COLUMNS: [(&str, Cell); 13] = [
    ("policy", |row| Some(row.policy.clone())),
    ("in time", |row| row.slo_attainment.map(percent)),
    ("by work", |row| row.weighted_attainment.map(percent)),
    ("worst model", |row| row.worst_model.map(percent)),
    ("tail", |row| row.tail.map(percent)),
    ("to the bound", |row| row.to_the_bound.map(percent)),
    ("gap closed", |row| row.gap_closed.map(gap)),
    ("p50", |row| row.p50_s.map(|sample| format!("{:.1} s", sample.mean))),
    ("p95", |row| row.p95_s.map(|sample| format!("{:.1} s", sample.mean))),
    ("switches", |row| row.switch_share.map(|sample| format!("{:.2}", sample.mean))),
    ("busy", |row| row.gpu_busy_share.map(|sample| format!("{:.0} %", sample.mean * 100.0))),
    ("$ per image", |row| priced(row).then_some(row.usd_per_image_in_slo).flatten().map(|s| format!("{:.5}", s.mean))),
    ("refused late lost", |row| {
        let whole = |sample: Option<Sample>| sample.map(|sample| format!("{:.0}", sample.mean));
        Some(format!("{} {} {}", whole(row.rejected)?, whole(row.late)?, whole(row.lost)?))
    }),
];

/// Ready to print, with what the columns mean below.
pub(crate) fn table(rows: &[Summary]) -> String {
    let columns = COLUMNS.iter().map(|(title, cell)| (*title, rows.iter().map(cell).collect::<Vec<_>>()));
    let columns: Vec<(&str, Vec<Option<String>>)> =
        columns.filter(|(_, cells)| cells.iter().any(Option::is_some)).collect();
    let mut lines = vec![String::new(); rows.len() + 1];
    for (at, (title, cells)) in columns.iter().enumerate() {
        let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "–".into());
        let cells: Vec<String> = std::iter::once((*title).to_owned()).chain(cells.iter().map(text)).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        for (line, cell) in lines.iter_mut().zip(&cells) {
            // Names stand to the left, figures to the right.
            let padding = " ".repeat(width - cell.chars().count());
            let parts = if at == 0 { ["", cell, &padding] } else { ["  ", &padding, cell] };
            line.extend(parts);
        }
    }
    format!("{}\n\n{}\n", lines.join("\n"), legend(rows))
}

fn legend(rows: &[Summary]) -> String {
    let seeds = rows.first().map_or(0, |row| row.seeds.len());
    let mean = if seeds > 1 {
        format!("Means of {seeds} seeds; ± is half of the 95 % interval. ")
    } else {
        "One seed, so there are no intervals. ".into()
    };
    let bound = if rows.iter().any(|row| row.to_the_bound.is_some()) {
        " To the bound: points that even perfect knowledge could win at most; gap closed: of what lies between cheapest-feasible and it."
    } else {
        ""
    };
    format!(
        "{mean}In time: requests drawn by their deadline; refused, late and lost ones are misses. By work: each weighted by its \
         seconds. Worst model: of those with 100 requests and more; tail: all others together. Switches: loads for each drawn request.{bound}"
    )
}

fn gap(share: f64) -> String {
    if share < 0.0 { "none".into() } else { format!("{:.0} %", share * 100.0) }
}

fn priced(row: &Summary) -> bool {
    row.cost_usd.is_some_and(|cost| cost.mean > 0.0)
}

fn percent(sample: Sample) -> String {
    match sample.interval95 {
        Some(interval) => format!("{:.1} ± {:.1} %", sample.mean * 100.0, interval * 100.0),
        None => format!("{:.1} %", sample.mean * 100.0),
    }
}
