//! `husk image`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use husk_images::read::ReadError;
use husk_images::{Digest, Image, Name, Named, Reference, Removed, Source, Store, StoreError};
use serde_json::{Map, Value, json};

use super::args::{Cli, ImageVerb, ListFormat, LoadArgs, LsArgs};
use super::progress::Meter;
use super::{Error, STATUS_FAILED, print_text, report};

/// Digits of an id in a list.
const SHORT: usize = 12;

/// Does one of the verbs.
pub fn run(cli: &Cli, verb: &ImageVerb) -> Result<ExitCode, Error> {
    let store = Store::open(&cli.store())?;
    match verb {
        ImageVerb::Load(args) => load(&store, args),
        ImageVerb::Ls(args) => list(&store, args),
        ImageVerb::Inspect { images } => inspect(&store, images),
        ImageVerb::Rm { images, force } => remove(&store, images, *force),
        ImageVerb::Prune { all } => prune(&store, *all),
    }
}

fn load(store: &Store, args: &LoadArgs) -> Result<ExitCode, Error> {
    match load_one(store, &args.source, args.name.as_ref()) {
        // Several, and none was chosen: all of them, unless they were all to have one name.
        Err(StoreError::Read(ReadError::SeveralImages { references, .. }))
            if args.name.is_none() =>
        {
            for reference in references {
                load_one(store, &args.source.with_reference(&reference), None)
                    .map_err(Error::from)
                    .and_then(|text| print_text(&text))?;
            }
        }
        other => {
            print_text(&other?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads an image and says so.
fn load_one(
    store: &Store,
    source: &Source,
    name: Option<&Reference>,
) -> Result<String, StoreError> {
    let mut given = Vec::new();
    let image = store.add(
        source,
        |found| {
            given = name.map_or_else(|| found.references(), |name| vec![name.clone()]);
            let name = |reference: &Reference| Name {
                reference: reference.clone(),
                manifests: found.manifests.clone(),
            };
            given.iter().map(name).collect()
        },
        &mut Meter::new(),
    )?;
    let mut text = String::new();
    for name in &given {
        let _ = writeln!(text, "Loaded image: {name}");
    }
    if given.is_empty() {
        let _ = writeln!(text, "Loaded image ID: {}", image.digest);
    }
    Ok(text)
}

fn list(store: &Store, args: &LsArgs) -> Result<ExitCode, Error> {
    let mut names: HashMap<Digest, Vec<Name>> = HashMap::new();
    for Named { name, image } in store.names()? {
        names.entry(image).or_default().push(name);
    }
    let mut status = ExitCode::SUCCESS;
    let mut images = Vec::new();
    for image in store.images(&mut Meter::new())? {
        match image {
            Ok(image) => images.push(image),
            Err(error) => {
                report(&error.to_string());
                status = ExitCode::from(STATUS_FAILED);
            }
        }
    }
    // Newest first, as Docker has it; RFC 3339 times of one zone order as text.
    let created = |image: &Image| document(image)["created"].as_str().map(str::to_owned);
    images.sort_by_cached_key(|image| (std::cmp::Reverse(created(image)), image.digest.clone()));
    let mut rows = Vec::new();
    for image in &images {
        let names = names.remove(&image.digest).unwrap_or_default();
        let id = image.digest.to_string();
        let id = if args.no_trunc {
            id
        } else {
            image.digest.hex()[..SHORT].to_owned()
        };
        let created = created(image).unwrap_or_default();
        let mut row = |repository: String, tag: &str| {
            rows.push([
                repository,
                tag.to_owned(),
                id.clone(),
                created.clone(),
                size(image.bytes),
            ]);
        };
        if names.is_empty() || args.quiet {
            row("<none>".to_owned(), "<none>");
            continue;
        }
        for name in names {
            row(
                name.reference.repository(),
                name.reference.tag().unwrap_or("<none>"),
            );
        }
    }
    let mut text = String::new();
    match (args.quiet, args.format) {
        (true, _) => rows.iter().for_each(|row| text += &format!("{}\n", row[2])),
        (false, ListFormat::Json) => {
            for [repository, tag, id, created, size] in rows {
                let row = json!({
                    "Repository": repository, "Tag": tag, "ID": id, "CreatedAt": created, "Size": size,
                });
                text += &format!("{row}\n");
            }
        }
        (false, ListFormat::Table) => text = table(rows),
    }
    print_text(&text)?;
    Ok(status)
}

/// Columns wide enough for what is in them.
fn table(rows: Vec<[String; 5]>) -> String {
    let head = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned);
    let mut all = vec![head];
    for mut row in rows {
        // A date is enough for people.
        row[3] = row[3].split('T').next().unwrap_or_default().to_owned();
        all.push(row);
    }
    let mut widths = [0; 5];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &all {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        text += &format!("{}\n", line.trim_end());
    }
    text
}

/// As Docker writes sizes: powers of 1000 and at most four digits.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    match unit {
        "B" => format!("{bytes}B"),
        _ if value < 10.0 => format!("{value:.2}{unit}"),
        _ if value < 100.0 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

fn inspect(store: &Store, wanted: &[String]) -> Result<ExitCode, Error> {
    let names = store.names()?;
    let mut all = Vec::new();
    for wanted in wanted {
        let image = store.find(wanted, &mut Meter::new())?;
        all.push(description(&image, &names));
    }
    let text = serde_json::to_string_pretty(&all).unwrap_or_default();
    print_text(&format!("{text}\n"))
}

/// The members Docker's `image inspect` has, as far as an image says so.
fn description(image: &Image, names: &[Named]) -> Value {
    let own = names.iter().filter(|named| named.image == image.digest);
    let own: Vec<&Name> = own.map(|named| &named.name).collect();
    let tags: Vec<String> = own.iter().map(|name| name.reference.to_string()).collect();
    let digests: Vec<String> = own
        .iter()
        .flat_map(|name| {
            let repository = name.reference.repository();
            name.manifests
                .iter()
                .map(move |digest| format!("{repository}@{digest}"))
        })
        .collect();
    let layers: Vec<String> = image.diff_ids.iter().map(Digest::to_string).collect();
    let from = document(image);
    let mut members = Map::new();
    for (key, value) in [
        ("Id", json!(image.digest.to_string())),
        ("RepoTags", json!(tags)),
        ("RepoDigests", json!(digests)),
        ("Comment", from["comment"].clone()),
        ("Created", from["created"].clone()),
        ("Author", from["author"].clone()),
        ("Config", from["config"].clone()),
        ("Architecture", json!(image.config.architecture)),
        ("Os", json!(image.config.os)),
        ("Size", json!(image.bytes)),
        ("RootFS", json!({ "Type": "layers", "Layers": layers })),
        ("History", from["history"].clone()),
    ] {
        if !value.is_null() {
            members.insert(key.to_owned(), value);
        }
    }
    Value::Object(members)
}

/// The whole configuration. What was stored has been read before.
fn document(image: &Image) -> Value {
    serde_json::from_slice(&image.config_bytes).unwrap_or_default()
}

fn remove(store: &Store, wanted: &[String], force: bool) -> Result<ExitCode, Error> {
    let mut status = ExitCode::SUCCESS;
    for wanted in wanted {
        match store.remove(wanted, force, &mut Meter::new()) {
            Ok(removed) => {
                print_text(&told(&removed))?;
            }
            // The others still go, as with rm(1).
            Err(error) => {
                report(&error.to_string());
                status = ExitCode::from(STATUS_FAILED);
            }
        }
    }
    Ok(status)
}

fn prune(store: &Store, all: bool) -> Result<ExitCode, Error> {
    let removed = store.prune(all, &mut Meter::new())?;
    let mut text = told(&removed);
    let _ = writeln!(text, "Total reclaimed space: {}", size(removed.bytes));
    print_text(&text)
}

fn told(removed: &Removed) -> String {
    let mut text = String::new();
    for name in &removed.names {
        let _ = writeln!(text, "Untagged: {name}");
    }
    for image in &removed.images {
        let _ = writeln!(text, "Deleted: {image}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_docker_writes_them() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (4_260_000, "4.26MB"),
            (77_800_000, "77.8MB"),
            (187_000_000, "187MB"),
            (1_200_000_000_000, "1.20TB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn tables_line_up() {
        let row = [
            "a/long/name",
            "t",
            "0123456789ab",
            "2024-01-02T03:04:05Z",
            "1.00kB",
        ];
        let text = table(vec![row.map(str::to_owned)]);
        assert_eq!(
            text,
            "REPOSITORY    TAG   IMAGE ID       CREATED      SIZE\n\
             a/long/name   t     0123456789ab   2024-01-02   1.00kB\n"
        );
    }
}
