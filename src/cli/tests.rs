//! The command line as a newcomer meets it.

use super::*;

fn visible() -> Vec<clap::Command> {
    let mut cli = Cli::command();
    cli.build();
    let commands = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    commands
        .filter(|command| command.get_name() != "help")
        .cloned()
        .collect()
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn each_command_has_an_example_and_each_option_a_sentence() {
    let commands = visible();
    assert!(commands.len() >= 15, "{}", commands.len());
    for command in commands {
        let name = command.get_name();
        assert!(
            command.get_about().is_some(),
            "`{name}` does not say what it does"
        );
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(after.contains("Example"), "`{name}` has no example");
        assert!(
            after.contains(&format!("cutover {name}")),
            "`{name}`: another command's example"
        );
        for option in command
            .get_arguments()
            .filter(|option| !option.is_hide_set())
        {
            let help = option
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.len() >= 8,
                "`{name} {}` is not explained: {help}",
                option.get_id()
            );
        }
    }
}

#[test]
fn slips_of_the_keyboard_are_answered_with_the_nearest_command() {
    for (typed, meant) in [
        ("stauts", "status"),
        ("rolback", "rollback"),
        ("request", "requests"),
    ] {
        let error = Cli::try_parse_from(["cutover", typed])
            .unwrap_err()
            .to_string();
        assert!(error.contains(meant), "{typed}: {error}");
    }
    let error =
        Cli::try_parse_from(["cutover", "requests", "--outcome", "server-eror"]).unwrap_err();
    assert!(error.to_string().contains("'server-error'"), "{error}");
    let nothing = Cli::try_parse_from(["cutover"]).unwrap_err();
    assert!(nothing.to_string().contains("Exit codes:"), "{nothing}");
}
