//! The trace: CSV with a header, columns in any order. Keeps the rows that were served; a row that can't be read ends it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, ensure};
use easel_planner::simulate::Row;
use easel_planner::time::Moment;

/// Columns that are read. Others (`kind`, `exec_s`, `width`, `height`, `class`, `tenant`) may stand beside them.
const COLUMNS: [&str; 7] = ["arrival_s", "user", "model", "loras", "images", "steps", "status"];
/// What was served; the others never drew anything.
const SERVED: &str = "succeed";
/// Far above what anybody asks for, and small enough that no sum overflows.
const MOST: u32 = 100_000;

pub(super) fn read(path: &Path, most: usize) -> anyhow::Result<Vec<Row>> {
    parse(BufReader::new(File::open(path)?), most)
}

/// At most so many rows, so that a long trace need not be read to its end.
fn parse(reader: impl Read, most: usize) -> anyhow::Result<Vec<Row>> {
    let mut csv = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(reader);
    let header = csv.headers()?.clone();
    let mut places = [0; COLUMNS.len()];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let found = header.iter().position(|column| column == name);
        *place = found.with_context(|| {
            let there: Vec<&str> = header.iter().collect();
            format!("the column '{name}' is missing; the header has {}", there.join(","))
        })?;
    }
    let mut rows = Vec::new();
    for record in csv.records() {
        if rows.len() == most {
            break;
        }
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |at: usize| record.get(places[at]).unwrap_or_default();
        if cell(6) == SERVED {
            rows.push(row(cell).with_context(|| format!("line {line}"))?);
        }
    }
    Ok(rows)
}

fn row<'a>(cell: impl Fn(usize) -> &'a str) -> anyhow::Result<Row> {
    let arrival: f64 = cell(0).parse().with_context(|| format!("arrival_s '{}' is no number", cell(0)))?;
    ensure!(arrival.is_finite() && arrival >= 0.0, "arrival_s is {arrival}; it must be 0 or more");
    let model = cell(2);
    ensure!(!model.is_empty(), "model is empty");
    Ok(Row {
        arrival: Moment::from_secs(arrival),
        model: model.to_owned(),
        user: cell(1).to_owned(),
        loras: whole(COLUMNS[3], cell(3), 0)?,
        images: whole(COLUMNS[4], cell(4), 1)?,
        steps: whole(COLUMNS[5], cell(5), 1)?,
    })
}

fn whole(column: &str, text: &str, least: u32) -> anyhow::Result<u32> {
    let must = || format!("{column} is '{text}'; it must be a whole number from {least} to {MOST}");
    text.parse::<u32>().ok().filter(|number| (least..=MOST).contains(number)).with_context(must)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "kind,arrival_s,user,model,loras,images,steps,status,exec_s,width
txt_2_img,0.5,u1,m1,1,4,30,succeed,32.0,512
txt_2_img,1,u1,m1,0,1,30,failed,,512
img_2_img,2,u2,m2,0,1,20,succeed,9,512
";

    #[test]
    fn served_rows_are_read_whatever_the_order_of_columns() {
        let rows = parse(TRACE.as_bytes(), 9).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].arrival, rows[0].images, rows[0].loras), (Moment::from_secs(0.5), 4, 1));
        assert_eq!((rows[1].model.as_str(), rows[1].steps), ("m2", 20));
        assert_eq!(parse(TRACE.as_bytes(), 1).unwrap().len(), 1);
    }

    #[test]
    fn a_row_that_can_not_be_read_is_named_by_its_line_and_column() {
        for (from, to, expected) in [
            ("0.5,u1", "soon,u1", "line 2: arrival_s 'soon' is no number"),
            ("1,4,30", "1,0,30", "line 2: images is '0'; it must be a whole number from 1"),
            ("m2,0", "m2,x", "line 4: loras is 'x'"),
            ("u2,m2", "u2,", "line 4: model is empty"),
            ("steps", "stairs", "the column 'steps' is missing; the header has kind,"),
        ] {
            let error = parse(TRACE.replacen(from, to, 1).as_bytes(), 9).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }
}
