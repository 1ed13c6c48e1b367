//! `docker compose up`, and a pool answers: the files at the top of the tree, driven from outside.

mod house;
mod images;

use house::{Project, Tool, becomes, docker};
use images::{Images, missing};
use reqwest::Method;
use serde_json::{Value, json};

const TOKEN: &str = "of-the-compose-tests";
const POOL: [&str; 1] = ["compose.yaml"];
const DOCKER: [&str; 2] = ["compose.yaml", "compose.docker.yaml"];
const NAMESPACES: [&str; 2] = ["compose.yaml", "compose.namespaces.yaml"];

#[tokio::test]
async fn docker_compose_as_a_program_brings_up_a_pool() {
    let test = "docker_compose_as_a_program_brings_up_a_pool";
    let Some(project) = by_the_program(test, &POOL) else { return };
    brings_up_a_pool(project).await;
}

fn by_the_program(test: &str, files: &[&str]) -> Option<Project> {
    if let Err(why) = Tool::Program.version() {
        missing(test, &format!("no docker-compose: {why}"));
        return None;
    }
    Some(Project::new(Tool::Program, Images::of(test)?, files))
}

#[tokio::test]
async fn docker_compose_as_a_plugin_brings_up_a_pool() {
    let test = "docker_compose_as_a_plugin_brings_up_a_pool";
    // Not all distributions have it, so it is not owed.
    if Tool::Plugin.version().is_err() {
        println!("skipped: {test}: docker has no plugin `compose`");
        return;
    }
    let Some(images) = Images::of(test) else { return };
    brings_up_a_pool(Project::new(Tool::Plugin, images, &POOL)).await;
}

async fn brings_up_a_pool(project: Project) {
    project.up().await;
    only_this_machine_with_the_token_is_let_in(&project).await;

    let (lease, isolation) = project.acquire("t1").await;
    assert_eq!(isolation, "uid");
    let result = project.bash(&lease, "echo $((6 * 7)); echo kept > file").await;
    assert_eq!(result["output"], "42\n", "{result}");
    a_slot_does_not_read_the_token(&project, &lease).await;
    let path = format!("/v1/leases/{lease}");
    let (status, _) = project.send(Some(TOKEN), Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, 204);
    becomes(&project, "{{.State.Health.Status}}", "healthy").await;

    a_death_is_told_to_who_held_leases(&project).await;
    an_orderly_stop_ends_well(&project).await;
    project.run(&["down", "--volumes"]).unwrap();
    assert_eq!(project.leftovers(), [""; 0]);
}

async fn only_this_machine_with_the_token_is_let_in(project: &Project) {
    let refused = [(None, 401, "unauthenticated"), (Some("another"), 403, "forbidden")];
    for (token, wanted, code) in refused {
        let (status, problem) =
            project.send(token, Method::POST, "/v1/leases", json!({ "trajectory_id": "t" })).await;
        assert_eq!((status, &problem["code"]), (wanted, &json!(code)), "{problem}");
    }
    let published = project.published();
    assert!(published.starts_with("127.0.0.1:"), "{published}");
    assert_eq!(published.lines().count(), 1, "{published}");
}

async fn a_slot_does_not_read_the_token(project: &Project, lease: &str) {
    let look = "cat /proc/[0-9]*/environ 2>&1 | tr '\\0' '\\n' | grep -c TOKEN= ; true";
    let result = project.bash(lease, look).await;
    assert_eq!(result["output"], "0\n", "{result}");
}

/// The pool and its containers die together here; its journal is in a volume, for the next one.
async fn a_death_is_told_to_who_held_leases(project: &Project) {
    let (lease, _) = project.acquire("t2").await;
    project.bash(&lease, "echo lost > file").await;
    docker(&["rm", "--force", "--volumes", &project.container()]).unwrap();
    project.up().await;

    let path = format!("/v1/leases/{lease}");
    let (status, problem) = project.send(Some(TOKEN), Method::GET, &path, Value::Null).await;
    assert_eq!((status, &problem["code"]), (410, &json!("lease_revoked")), "{problem}");
    assert_eq!(problem["caused_by"], "infra");
    let (next, _) = project.acquire("t2").await;
    assert_ne!(next, lease);
    assert_eq!(project.bash(&next, "ls").await["output"], "", "the slot is empty");
}

async fn an_orderly_stop_ends_well(project: &Project) {
    project.run(&["restart"]).unwrap();
    project.answers().await;
    let (lease, _) = project.acquire("t3").await;
    // Only with one more capability can another user delete this.
    let stubborn = "mkdir -m 1777 d; touch d/f; chmod 0 d/f; echo again";
    assert_eq!(project.bash(&lease, stubborn).await["output"], "again\n");
    project.run(&["stop"]).unwrap();
    assert_eq!(project.inspect("{{.State.ExitCode}}"), "0");
    let listed = "ls /var/lib/slotmux/workspaces/default/containers";
    let volumes = project.container();
    let image = project.inspect("{{.Config.Image}}");
    let left = docker(&[
        "run",
        "--rm",
        "--volumes-from",
        &volumes,
        "--user",
        "0",
        "--entrypoint",
        "sh",
        &image,
        "-c",
        listed,
    ]);
    assert_eq!(left.unwrap(), "", "containers of the pool have left files");
}

#[tokio::test]
async fn compose_gives_slots_namespaces_without_any_root() {
    let test = "compose_gives_slots_namespaces_without_any_root";
    let tools = [Tool::Plugin, Tool::Program];
    let newer = |tool: &Tool| tool.version().is_ok_and(|it| !it.starts_with("1."));
    let Some(tool) = tools.into_iter().find(newer) else {
        println!("skipped: {test}: no Compose 2 here, and docker-compose 1 cannot uncover /proc");
        return;
    };
    let Some(images) = Images::of(test) else { return };
    let project = Project::new(tool, images, &NAMESPACES);
    project.up().await;
    let (lease, isolation) = project.acquire("t1").await;
    assert_eq!(isolation, "namespaces");
    assert_eq!(project.bash(&lease, "echo $$").await["output"], "2\n");
    let users = docker(&["top", &project.container(), "-eo", "pid,uid"]).unwrap();
    assert!(users.lines().skip(1).all(|it| !it.ends_with(" 0")), "{users}");
    project.run(&["down", "--volumes"]).unwrap();
    assert_eq!(project.leftovers(), [""; 0]);
}

#[tokio::test]
async fn compose_gives_the_pool_containers_that_outlive_its_death() {
    let test = "compose_gives_the_pool_containers_that_outlive_its_death";
    let Some(project) = by_the_program(test, &DOCKER) else { return };
    project.up().await;
    let (lease, _) = project.acquire("t1").await;
    project.bash(&lease, "echo kept > file").await;
    let pool = project.container();
    let owner = docker(&["exec", &pool, "cat", "/var/lib/slotmux/workspaces/docker-owner"]);
    let owner = format!("label=slotmux.owner={}", owner.unwrap());
    let containers = || docker(&["ps", "--all", "--quiet", "--filter", &owner]).unwrap();
    assert_ne!(containers(), "");

    docker(&["kill", &pool]).unwrap();
    becomes(&project, "{{.State.Running}}", "false").await;
    docker(&["start", &pool]).unwrap();
    project.answers().await;
    assert_eq!(project.acquire("t1").await.0, lease);
    assert_eq!(project.read_when_linked(&lease, "file").await, "kept\n");

    project.run(&["down", "--volumes"]).unwrap();
    assert_eq!(project.leftovers(), [""; 0]);
    assert_eq!(containers(), "");
}

#[test]
fn the_image_of_the_server_is_one_file_and_not_root() {
    let Some(images) = Images::of("the_image_of_the_server_is_one_file_and_not_root") else {
        return;
    };
    let said = docker(&["run", "--rm", &images.server(), "--version"]).unwrap();
    assert!(said.starts_with("slotmux-sandbox-server "), "{said}");
    for image in [images.server(), images.pool()] {
        let user = docker(&["image", "inspect", "--format", "{{.Config.User}}", &image]).unwrap();
        assert_eq!(user, "10001:10001");
    }
}

#[tokio::test]
async fn the_agent_by_docker_compose_runs_a_job_in_a_container_beside_its_own() {
    let test = "the_agent_by_docker_compose_runs_a_job_in_a_container_beside_its_own";
    let Some(mut project) = by_the_program(test, &POOL) else { return };
    project.up_agent().await;
    becomes(&project, "{{.State.Health.Status}}", "healthy").await;
    let job = json!({
        "job_id": "j1",
        "plain": { "image": house::BASE, "command": ["bash", "-c", "echo said; exit 3"] },
    });
    let (status, problem) = project.send(None, Method::POST, "/v1/jobs", job.clone()).await;
    assert_eq!(status, 401, "{problem}");
    let (status, answer) = project.send(Some(TOKEN), Method::POST, "/v1/jobs", job).await;
    assert!(status == 201 || status == 202, "{status} {answer}");
    let path = "/v1/jobs/j1/result?wait_s=60";
    let (status, answer) = project.send(Some(TOKEN), Method::GET, path, Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    let result = answer.to_string();
    assert!(result.contains("\"exit_code\":3") && result.contains("said"), "{result}");
    project.run(&["--profile", "agent", "down", "--volumes"]).unwrap();
    assert_eq!(project.leftovers(), [""; 0]);
}
