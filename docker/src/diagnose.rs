//! What `slotmux doctor` says of this backend.

use crate::{
    backend::ImageError,
    causes::chain,
    engine::Engine,
    parcel,
    settings::{ContainerSettings, DockerSettings, Pull, Walls},
};
use bollard::models::SystemInfo;
use slotmux_backend::Diagnosis;
use std::path::Path;

/// `Err`: without this nothing starts.
type Finding = Result<String, String>;

pub(crate) async fn look(engine: &Engine, settings: &DockerSettings) -> Diagnosis {
    let mut findings = Vec::new();
    let info = match engine.info().await {
        Ok(info) => Some(info),
        Err(error) => {
            findings.push(Err(chain(&error)));
            None
        }
    };
    if let Some(info) = &info {
        findings.push(Ok(described(engine, info)));
    }
    findings.push(program(&settings.program, info.as_ref()));
    if let Some(info) = &info {
        for (name, container) in &settings.profiles {
            profile(engine, info, name.as_str(), container, &mut findings).await;
        }
        // Where every profile is named, nothing is made of it.
        if settings.profiles.is_empty() {
            profile(engine, info, "default", &settings.default, &mut findings).await;
        }
    }
    Diagnosis {
        usable: findings.iter().all(Result::is_ok),
        findings: findings.into_iter().map(|it| it.unwrap_or_else(|why| why)).collect(),
    }
}

fn described(engine: &Engine, info: &SystemInfo) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "unknown".to_owned());
    let options = info.security_options.iter().flatten();
    // `name=seccomp,profile=default`
    let security: Vec<&str> = options
        .map(|option| option.strip_prefix("name=").unwrap_or(option))
        .map(|option| option.split_once(',').map_or(option, |(name, _)| name))
        .collect();
    format!(
        "engine {} at `{}`: {} on {}, cgroup version {}, security: {}",
        text(&info.server_version),
        engine.host(),
        text(&info.operating_system),
        text(&info.architecture),
        info.cgroup_version.map_or_else(|| "unknown".to_owned(), |it| it.to_string()),
        if security.is_empty() { "none".to_owned() } else { security.join(", ") },
    )
}

fn program(path: &Path, info: Option<&SystemInfo>) -> Finding {
    let shown = path.display();
    let elf = match parcel::look_at(path) {
        Ok(Some(elf)) => elf,
        Ok(None) => return Err(format!("`{shown}` is no program that a container could run")),
        Err(error) => return Err(format!("cannot read `{shown}`: {error}")),
    };
    let engine = info.and_then(|info| info.architecture.as_deref()).map(|it| match it {
        // As Podman has it.
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    });
    if let (Some(own), Some(engine)) = (elf.architecture, engine)
        && own != engine
    {
        return Err(format!("`{shown}` is for {own}, and the engine's machine is {engine}"));
    }
    if elf.is_static {
        Ok(format!("puts `{shown}` into any image"))
    } else {
        Ok(format!("puts `{shown}` into images that have its libraries: it is not static"))
    }
}

async fn profile(
    engine: &Engine,
    info: &SystemInfo,
    name: &str,
    container: &ContainerSettings,
    findings: &mut Vec<Finding>,
) {
    let ContainerSettings { image, network, .. } = container;
    findings.push(match (engine.has_image(image).await, container.pull) {
        (Ok(true), _) => Ok(format!("profile `{name}`: image `{image}` is there")),
        (Ok(false), _) if container.build.is_some() => {
            Ok(format!("profile `{name}`: image `{image}` is not there, and will be built"))
        }
        (Ok(false), _) if container.is_local() => {
            Err(format!("profile `{name}`: {}", ImageError::NotMade(image.clone())))
        }
        (Ok(false), Pull::IfMissing) => {
            Ok(format!("profile `{name}`: image `{image}` is not there, and will be pulled"))
        }
        (Ok(false), Pull::Never) => {
            Err(format!("profile `{name}`: image `{image}` is not there, and may not be pulled"))
        }
        (Err(error), _) => Err(format!("profile `{name}`: {}", chain(&error))),
    });
    match engine.has_network(network).await {
        Ok(true) => {}
        Ok(false) => findings.push(Err(format!("profile `{name}`: no network `{network}`"))),
        Err(error) => findings.push(Err(format!("profile `{name}`: {}", chain(&error)))),
    }
    if let Some(runtime) = &container.runtime
        && !info.runtimes.as_ref().is_some_and(|known| known.contains_key(runtime))
    {
        findings.push(Err(format!("profile `{name}`: the engine has no runtime `{runtime}`")));
    }
    let rung = match container.walls {
        Walls::Ordinary => "ordinary containers, the rung `uid`",
        Walls::Namespaces => "the rung `namespaces`, where the machine lets users have them",
        Walls::Best => "the rung `namespaces` where it can be had, else `uid`; tried at first",
    };
    findings.push(Ok(format!("profile `{name}`: {rung}")));
}
