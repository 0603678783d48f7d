//! A trace from CSV: columns by their names, in any order. A row that can't be meant is refused with its line and column.

use anyhow::{Context, anyhow, bail};
use csv::StringRecord;
use easel_planner::simulate::Row;
use easel_planner::time::Moment;

/// Those that are read, and then those that may stand there.
const KNOWN: [&str; 13] = [
    "arrival_s",
    "model",
    "images",
    "steps",
    "loras",
    "user",
    "status",
    "kind",
    "exec_s",
    "width",
    "height",
    "class",
    "tenant",
];
const NEEDED: usize = 4;
/// The only status that is simulated: of others nobody knows what they would have taken.
const SUCCEED: &str = "succeed";
const MOST_IMAGES: u32 = 10_000;
const MOST_STEPS: u32 = 100_000;
const MOST_LORAS: u32 = 1_000;
/// Three thousand years.
const LATEST: f64 = 1e11;

pub(crate) fn parse(text: &str) -> anyhow::Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let columns = Columns::of(reader.headers().map_err(unequal)?)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(unequal)?;
        let line = record.position().map_or(0, csv::Position::line);
        rows.extend(columns.row(&record).with_context(|| format!("line {line}"))?);
    }
    if rows.is_empty() {
        bail!("the trace has no row with status {SUCCEED}");
    }
    Ok(rows)
}

/// Where each column stands.
struct Columns {
    arrival: usize,
    model: usize,
    images: usize,
    steps: usize,
    loras: Option<usize>,
    user: Option<usize>,
    status: Option<usize>,
}

impl Columns {
    fn of(header: &StringRecord) -> anyhow::Result<Self> {
        for name in header {
            if !KNOWN.contains(&name) {
                let meant = super::nearest(name, KNOWN.into_iter());
                bail!(
                    "line 1: '{name}' is not a column of a trace{meant}; rename or remove it. Known: {}",
                    KNOWN.join(", ")
                );
            }
        }
        let find = |name: &str| header.iter().position(|column| column == name);
        let need = |name: &str| {
            let needed = KNOWN[..NEEDED].join(", ");
            find(name).ok_or_else(|| anyhow!("line 1: there is no column {name}; the header must name {needed}"))
        };
        Ok(Self {
            arrival: need("arrival_s")?,
            model: need("model")?,
            images: need("images")?,
            steps: need("steps")?,
            loras: find("loras"),
            user: find("user"),
            status: find("status"),
        })
    }

    /// Nothing for a request that did not succeed.
    fn row(&self, record: &StringRecord) -> anyhow::Result<Option<Row>> {
        let text = |at: usize| record.get(at).unwrap_or_default();
        if self.status.is_some_and(|at| text(at) != SUCCEED) {
            return Ok(None);
        }
        let model = text(self.model);
        if model.is_empty() {
            bail!("column model is empty; write the name of the model that was asked for");
        }
        Ok(Some(Row {
            arrival: arrival(text(self.arrival))?,
            model: model.to_owned(),
            user: self.user.map(text).unwrap_or_default().to_owned(),
            loras: self.loras.map_or(Ok(0), |at| whole("loras", text(at), 0, MOST_LORAS))?,
            images: whole("images", text(self.images), 1, MOST_IMAGES)?,
            steps: whole("steps", text(self.steps), 1, MOST_STEPS)?,
        }))
    }
}

fn arrival(text: &str) -> anyhow::Result<Moment> {
    let seconds: Option<f64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.0..=LATEST).contains(seconds));
    let why =
        || format!("column arrival_s: '{text}' is not a time; write seconds since the first request, such as 12.5");
    seconds.map(Moment::from_secs).with_context(why)
}

fn whole(column: &str, text: &str, least: u32, most: u32) -> anyhow::Result<u32> {
    let number: Option<u32> = text.parse().ok();
    let why =
        || format!("column {column}: '{text}' is not a whole number from {least} to {most}; correct or remove the row");
    number.filter(|number| (least..=most).contains(number)).with_context(why)
}

fn unequal(error: csv::Error) -> anyhow::Error {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => anyhow!(
            "line {line}: has {len} fields and the header {expected_len}; add or remove commas, or quote fields that hold one"
        ),
        _ => anyhow!(error).context("is not CSV"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "arrival_s,kind,user,model,loras,images,steps,status,exec_s\n";

    fn refused(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn columns_are_found_by_name_and_only_what_succeeded_is_read() {
        let rows = parse(&format!("{HEADER}0,txt_2_img,ann,sdxl,0,1,30,succeed,9\n1,x,bob,y,z,,,failed,\n")).unwrap();
        assert_eq!(rows.len(), 1);
        let other = parse("steps,width,images,model,arrival_s\n30,512,4, sdxl ,1.5\n").unwrap();
        let expected = Row {
            arrival: Moment::from_secs(1.5),
            model: "sdxl".into(),
            user: String::new(),
            loras: 0,
            images: 4,
            steps: 30,
        };
        assert_eq!(other, [expected]);
    }

    #[test]
    fn a_wrong_row_is_refused_by_its_line_and_column() {
        for (row, says) in [
            ("soon,t,u,m,0,1,30,succeed,9", "line 3: column arrival_s: 'soon' is not a time"),
            ("-1,t,u,m,0,1,30,succeed,9", "line 3: column arrival_s: '-1'"),
            ("NaN,t,u,m,0,1,30,succeed,9", "line 3: column arrival_s: 'NaN'"),
            ("1,t,u,,0,1,30,succeed,9", "line 3: column model is empty"),
            ("1,t,u,m,0,0,30,succeed,9", "line 3: column images: '0' is not a whole number from 1"),
            ("1,t,u,m,0,1,3.5,succeed,9", "line 3: column steps: '3.5'"),
            ("1,t,u,m,0,1,30", "line 3: has 7 fields and the header 9"),
        ] {
            let text = refused(&format!("{HEADER}0,t,u,m,0,1,30,succeed,9\n{row}\n"));
            assert!(text.starts_with(says), "{row}: {text}");
        }
    }

    #[test]
    fn a_wrong_header_is_refused_by_name() {
        assert!(refused("arrival_s,model,images\n").contains("there is no column steps"));
        assert!(refused("arrival_s,model,image,steps\n").contains("did you mean images?"));
        assert!(refused(HEADER).contains("no row with status succeed"));
        assert!(refused("").contains("there is no column arrival_s"));
    }
}
