//! Which environments there are: found out at the start, and whenever images change.

use crate::{Environment, Environments, Runtime, containers::CgroupVersion};
use slotmux_docker::Image;
use std::{
    collections::{BTreeMap, HashMap},
    time::UNIX_EPOCH,
};

/// An image with this is one for grading; its value is the environment's name.
pub(crate) const NAME: &str = "org.inginious.grading.name";
const VERSION: &str = "org.inginious.grading.agent_version";
const VERSION_WANTED: &str = "4";
const PORTS: &str = "org.inginious.grading.ports";
const NEEDS_ROOT: &str = "org.inginious.grading.need_root";
const NEEDS_GPU: &str = "org.inginious.grading.need_gpu";
const ADVERTISED: &str = "org.inginious.grading.advertise";

/// What does not change while an engine runs.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) cgroup: CgroupVersion,
    pub(crate) memory_mb: u64,
    pub(crate) cpus: u32,
    pub(crate) runtimes: Vec<Runtime>,
}

/// Of an engine's own list, where none were named: one for each type of environment.
pub(crate) fn runtimes(names: &[String], default: Option<&str>, ssh: bool) -> Vec<Runtime> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    // What the engine would take by itself goes first.
    names.sort_by_key(|name| Some(*name) != default);
    let mut found = BTreeMap::new();
    for name in names {
        let gpu = name.contains("nvidia");
        let kind = match gpu {
            true => "nvidia",
            false if name.contains("runc") || name.contains("crun") => "docker",
            false => continue,
        };
        let kinds = [kind.to_owned(), format!("{kind}-ssh")];
        for environment_type in kinds.into_iter().take(if ssh { 2 } else { 1 }) {
            found.entry(environment_type.clone()).or_insert_with(|| Runtime {
                name: name.to_owned(),
                environment_type,
                run_as_root: false,
                gpu,
            });
        }
    }
    found.into_values().collect()
}

/// Of two images with one name the newer one is taken.
pub(crate) fn environments(images: &[Image], runtimes: &[Runtime]) -> Environments {
    let mut found = BTreeMap::<String, BTreeMap<String, Environment>>::new();
    for image in images {
        let Some(read) = read(image) else { continue };
        for runtime in runtimes {
            if (read.needs_root && !runtime.run_as_root) || (read.needs_gpu && !runtime.gpu) {
                continue;
            }
            let environment = Environment {
                runtime: runtime.name.clone(),
                run_as_root: runtime.run_as_root,
                ..read.environment.clone()
            };
            let named = found.entry(runtime.environment_type.clone()).or_default();
            match named.get(&read.name) {
                Some(there) if there.created >= environment.created => {}
                Some(_) | None => {
                    named.insert(read.name.clone(), environment);
                }
            }
        }
    }
    Environments(found)
}

struct Read {
    name: String,
    needs_root: bool,
    needs_gpu: bool,
    environment: Environment,
}

fn read(image: &Image) -> Option<Read> {
    let name = image.labels.get(NAME)?.clone();
    let version = image.labels.get(VERSION).map_or("none", String::as_str);
    if version != VERSION_WANTED {
        tracing::warn!(image = image.id, name, version, "image is for another version of agents");
        return None;
    }
    let ports = image.labels.get(PORTS).map(|text| ports(text));
    let Ok(ports) = ports.unwrap_or_else(|| Ok(Vec::new())) else {
        tracing::warn!(image = image.id, name, "image wants ports that are none");
        return None;
    };
    let created = image.created.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Some(Read {
        needs_root: is_set(&image.labels, NEEDS_ROOT, false),
        needs_gpu: is_set(&image.labels, NEEDS_GPU, false),
        environment: Environment {
            id: image.id.clone(),
            created: i64::try_from(created).unwrap_or(i64::MAX),
            ports,
            advertised: is_set(&image.labels, ADVERTISED, true),
            title: name.clone(),
            runtime: String::new(),
            run_as_root: false,
        },
        name,
    })
}

fn ports(text: &str) -> Result<Vec<u16>, std::num::ParseIntError> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::parse).collect()
}

fn is_set(labels: &HashMap<String, String>, name: &str, default: bool) -> bool {
    let value = labels.get(name).map(|it| it.trim().to_lowercase());
    value.map_or(default, |it| matches!(it.as_str(), "true" | "1" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn image(id: &str, created_s: u64, labels: &[(&str, &str)]) -> Image {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Image {
            id: id.to_owned(),
            tags: Vec::new(),
            labels: labels.chain([(NAME.to_owned(), "default".to_owned())]).collect(),
            created: UNIX_EPOCH + Duration::from_secs(created_s),
        }
    }

    fn runtime(kind: &str, run_as_root: bool) -> Runtime {
        let name = "runc".to_owned();
        Runtime { name, environment_type: kind.to_owned(), run_as_root, gpu: false }
    }

    #[test]
    fn the_newest_image_of_the_right_version_is_taken() {
        let found = environments(
            &[
                image("old", 1, &[(VERSION, "4")]),
                image("new", 3, &[(VERSION, "4"), (PORTS, "22, 80")]),
                image("middle", 2, &[(VERSION, "4")]),
                image("newest", 9, &[(VERSION, "3")]),
                image("unversioned", 9, &[]),
            ],
            &[runtime("docker", false)],
        );
        let it = found.get("docker", "default").unwrap();
        assert_eq!((&*it.id, it.created, &it.ports[..]), ("new", 3, &[22, 80][..]));
        assert!(it.advertised && it.title == "default" && it.runtime == "runc");
    }

    #[test]
    fn what_an_image_needs_decides_where_it_is() {
        let root = image("root", 1, &[(VERSION, "4"), (NEEDS_ROOT, "true"), (ADVERTISED, "false")]);
        let gpu = image("gpu", 2, &[(VERSION, "4"), (NEEDS_GPU, "true")]);
        let odd = image("odd", 3, &[(VERSION, "4"), (PORTS, "many")]);
        let kinds = [runtime("docker", false), runtime("rooted", true)];
        let found = environments(&[root, gpu, odd], &kinds);
        assert_eq!(found.0.keys().collect::<Vec<_>>(), ["rooted"]);
        assert!(!found.get("rooted", "default").unwrap().advertised);
    }

    #[test]
    fn an_engines_runtimes_become_types_of_environments() {
        let names = ["runc", "nvidia", "io.containerd.runc.v2", "kata"].map(str::to_owned);
        let kinds = |default, ssh| {
            let found = runtimes(&names, default, ssh);
            found.into_iter().map(|it| (it.environment_type, it.name, it.gpu)).collect::<Vec<_>>()
        };
        let of = |kind: &str, name: &str, gpu| (kind.to_owned(), name.to_owned(), gpu);
        assert_eq!(
            kinds(Some("runc"), false),
            [of("docker", "runc", false), of("nvidia", "nvidia", true)]
        );
        assert_eq!(kinds(None, true)[1], of("docker-ssh", "io.containerd.runc.v2", false));
    }
}
