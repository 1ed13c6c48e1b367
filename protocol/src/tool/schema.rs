//! What models are told of the tools: function tools in the `OpenAI` form.

use super::{
    ArchiveArgs, BashArgs, BashStatefulArgs, DeleteArgs, EditFileArgs, GlobArgs, GrepArgs,
    ListFilesArgs, MkdirArgs, MoveArgs, ReadFileArgs, StatArgs, TerminalArgs, ToolCall,
    WriteFileArgs,
};
use serde_json::{Value, json};
use utoipa::PartialSchema;

impl ToolCall {
    /// `{"type": "function", "function": {name, description, parameters}}` for each tool.
    pub fn functions() -> Vec<Value> {
        Self::NAMES.into_iter().filter_map(function).collect()
    }
}

fn function(name: &str) -> Option<Value> {
    let (description, parameters) = match name {
        "bash" => (
            "Run a bash command in the workspace. Every call is a new shell; files stay, and so \
             do background processes.",
            schema::<BashArgs>(),
        ),
        "bash_stateful" => (
            "Run a bash command in a persistent shell: its directory, variables, functions and \
             jobs are there for the next call.",
            schema::<BashStatefulArgs>(),
        ),
        "terminal" => (
            "Use an interactive terminal: start a session, send keys, look at the screen.",
            schema::<TerminalArgs>(),
        ),
        "read_file" => ("Read a file, or a range of its lines or bytes.", schema::<ReadFileArgs>()),
        "write_file" => ("Write a file, making its directories.", schema::<WriteFileArgs>()),
        "edit_file" => (
            "Replace a piece of text in a file. The text must occur exactly once, unless \
             replace_all is set.",
            schema::<EditFileArgs>(),
        ),
        "list_files" => ("List a directory, sorted by name.", schema::<ListFilesArgs>()),
        "glob" => ("Find files by a pattern of their path.", schema::<GlobArgs>()),
        "grep" => ("Search the text of files for a regular expression.", schema::<GrepArgs>()),
        "stat" => ("Tell kind, size, mode and time of a file.", schema::<StatArgs>()),
        "mkdir" => ("Make a directory and its parents.", schema::<MkdirArgs>()),
        "delete" => ("Delete a file or a directory.", schema::<DeleteArgs>()),
        "move" => ("Move or rename a file or a directory.", schema::<MoveArgs>()),
        "archive" => ("Pack a file or a directory as tar.gz.", schema::<ArchiveArgs>()),
        _ => return None,
    };
    Some(json!({
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }))
}

fn schema<T: PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_description_and_a_closed_schema_of_its_own() {
        let functions = ToolCall::functions();
        let names: Vec<_> = functions.iter().map(|it| it["function"]["name"].as_str()).collect();
        assert_eq!(names, ToolCall::NAMES.map(Some));
        for function in functions {
            let parameters = &function["function"]["parameters"];
            assert_eq!(parameters["type"], "object", "{function}");
            assert_eq!(parameters["additionalProperties"], false, "{function}");
            // A model gets this document alone: there is nothing that a reference could lead to.
            assert!(!function.to_string().contains("$ref"), "{function}");
        }
    }
}
