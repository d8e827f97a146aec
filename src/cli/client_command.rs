//! `cutover client`: keys for those who may use the proxy. Makes one and shows it once; only its hash is kept.
#![expect(clippy::print_stderr, reason = "the command line speaks to a person")]

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArg, Failure, config_commands, harmless};
use crate::config::add_client::{self, AddError};
use crate::config::clients::{ClientConfig, KeyHash, Rate, check_key, is_name, new_key};
use crate::stdout;

/// How clients get in.
pub(super) const EXAMPLES: &str = "Examples:\n  \
    cutover client add app                          a key, and the lines for the configuration\n  \
    cutover client add batch --rate 600/min --write adds the lines to the file by itself\n  \
    pass show app-key | cutover client hash         for a key that you have already\n\n\
    Clients send the key where their SDK sends its API key (Authorization: Bearer, x-api-key or api-key). \
    It ends at cutover, so both arms need an api-key of their own. A running daemon takes clients up, and \
    lets them go, as soon as the file says so.";

/// Longer lines hold no key.
const LONGEST_KEY: u64 = 8 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Make a key for a client and show it once, with the lines for the configuration
    #[command(after_help = "Examples:\n  \
        cutover client add app\n  \
        cutover client add app --rate 100/s --write\n  \
        cutover client add app --write --json | jq -r .key\n\n\
        The key is kept nowhere: only its SHA-256 goes into the file. To change a key, remove the client's \
        lines and add it anew.")]
    Add(AddArgs),
    /// Read a key from standard input and print what it hashes to
    #[command(after_help = "Examples:\n  \
        pass show app-key | cutover client hash\n  \
        cutover client hash < app.key\n\n\
        It is the SHA-256 that `printf %s KEY | sha256sum` prints. A key needs at least 32 random characters.")]
    Hash,
}

/// The arguments of `client add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The client's name, as metrics and `status` show it: a-z, 0-9, - and _
    #[arg(value_parser = name)]
    name: String,
    /// How much it may ask, like 100/s or 600/min; any amount if left out
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    #[command(flatten)]
    config: ConfigArg,
    /// Add the lines to the end of the configuration file, if it is right with them
    #[arg(long)]
    write: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn name(text: &str) -> Result<String, &'static str> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 64 of a-z, 0-9, - and _")
    }
}

/// `cutover client`
pub(super) fn client(command: &ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::Add(args) => add(args),
        ClientCommand::Hash => hash(),
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let key = new_key().map_err(Failure::Failed)?;
    let client = ClientConfig {
        name: args.name.clone(),
        key_hash: KeyHash::of(key.as_bytes()),
        rate: args.rate,
    };
    let path = &args.config.config;
    // A key of a client that could not be added is never shown.
    if args.write {
        add_client::add(path, &client).map_err(|error| failure(path, &client, error))?;
    } else {
        match add_client::check(path, &client) {
            Err(error @ AddError::NameTaken) => return Err(failure(path, &client, error)),
            Err(error) => {
                let note = failure(path, &client, error);
                let note = harmless::lines(note.message());
                eprintln!("note: with these lines, the file still needs you:\n{note}\n");
            }
            Ok(_) => {}
        }
    }
    let block = add_client::block(&client);
    let file = path.display();
    if args.json {
        let answer = json!({
            "name": client.name,
            "key": key,
            "key_hash": client.key_hash.to_string(),
            "rate": client.rate.map(|rate| rate.to_string()),
            "config": file.to_string(),
            "written": args.write,
            "toml": block,
        });
        stdout::line(&answer.to_string());
        return Ok(());
    }
    stdout::line(&format!("{key}\n"));
    stdout::line("This is the client's API key. It is shown only now, and kept nowhere.");
    if args.write {
        stdout::line(&format!(
            "{file} lets it in now; it ends with these lines:\n"
        ));
    } else {
        stdout::line(&format!(
            "Add these lines to {file} to let it in (or use --write):\n"
        ));
    }
    stdout::raw(&block);
    Ok(())
}

fn failure(path: &Path, client: &ClientConfig, error: AddError) -> Failure {
    let file = path.display();
    match error {
        AddError::NameTaken => Failure::Refused(format!(
            "{file} has a client \"{}\" already; choose another name, or remove its lines first",
            client.name
        )),
        AddError::Load(error) => config_commands::load_failure(&error),
        AddError::Write(error) => Failure::Unreachable(format!(
            "cannot write {file}: {error}; without --write the lines are only printed"
        )),
    }
}

fn hash() -> Result<(), Failure> {
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("The key, then Enter:");
    }
    let mut line = String::new();
    stdin
        .take(LONGEST_KEY)
        .read_line(&mut line)
        .map_err(|error| Failure::Unreachable(format!("cannot read the key: {error}")))?;
    let key = line.trim();
    check_key(key).map_err(Failure::Refused)?;
    stdout::line(&KeyHash::of(key.as_bytes()).to_string());
    Ok(())
}
