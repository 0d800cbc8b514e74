//! The `dsproxy` program: arguments, logs, exit code.
//!
//! Must not know: how anything is done.

use clap::{Parser, Subcommand};
use dsproxy::app;
use dsproxy::config::{Config, Environment, LogConfig, LogFormat};
use dsproxy::embedded::keeper;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A write is allocated on one thread and freed on another, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A transparent caching proxy: one Redis port in front of a Redis Cluster and a database.
#[derive(Parser)]
#[command(name = "dsproxy", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(clap::Args, Clone)]
struct ConfigFile {
    /// Configuration file [default: proxy.toml, when it is there]
    #[arg(long, value_name = "FILE", env = "DSPROXY_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn path(&self) -> Option<PathBuf> {
        let shipped = || Some(PathBuf::from("proxy.toml")).filter(|path| path.exists());
        self.config.clone().or_else(shipped)
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Run the proxy (what plain `dsproxy` does, too)
    Serve {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Run the proxy with a Redis Cluster and a database of its own, in ./.dsproxy
    Dev {
        #[command(flatten)]
        file: ConfigFile,
        /// The database [default: postgres, or sqlite when [database] url names a SQLite file]
        #[arg(long, value_enum, value_name = "SOURCE")]
        source: Option<app::DevSource>,
        /// Directory of the migrations to apply [default: migrations, with SQLite migrations/sqlite]
        #[arg(long, value_name = "DIR")]
        migrations: Option<PathBuf>,
    },
    /// Check the configuration, the cluster and the database, and print how keys are routed
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Change the database's schema by numbered files
    Migrate {
        #[command(flatten)]
        file: ConfigFile,
        /// Directory of the migrations
        #[arg(long, value_name = "DIR", default_value = "migrations")]
        migrations: PathBuf,
        #[command(subcommand)]
        step: app::MigrateStep,
    },
    /// Writes that the database refused: list, show, replay or drop them
    Dlq {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        step: app::DlqStep,
    },
    /// Look into the journal of acknowledged writes
    Journal {
        #[command(subcommand)]
        step: app::JournalStep,
    },
    /// Ask a running proxy whether it is well; exit code 0 when it is
    Health {
        #[command(flatten)]
        file: ConfigFile,
        /// Also ask whether everything it depends on can be reached
        #[arg(long)]
        ready: bool,
        /// How long to wait for an answer, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
        timeout: u64,
    },
    /// Have a running proxy load rows of a mapping into the cache
    Warm {
        #[command(flatten)]
        file: ConfigFile,
        #[command(flatten)]
        options: app::WarmOptions,
    },
    /// Make sample data for the example systems
    Datagen {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        set: app::DataSet,
    },
    /// The process that owns the servers of a test run
    #[command(name = "keep-stack", hide = true)]
    KeepStack {
        /// Root directory, then the options as JSON
        #[arg(num_args = 2)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
        None => serve(&cli.file),
        Some(Verb::Serve { file }) => serve(&file),
        Some(Verb::Dev { file, source, migrations }) => dev(&file, source, migrations.as_deref()),
        Some(Verb::Check { file }) => check(&file),
        Some(Verb::Migrate { file, migrations, step }) => migrate(&file, &migrations, step),
        Some(Verb::Dlq { file, step }) => dlq(&file, step),
        Some(Verb::Journal { step: app::JournalStep::Adopt { config, dir } }) => {
            adopt(&ConfigFile { config }, &dir)
        }
        Some(Verb::Journal { step }) => app::journal(&step, &mut std::io::stdout().lock()).map_err(text),
        Some(Verb::Health { file, ready, timeout }) => health(&file, ready, Duration::from_secs(timeout)),
        Some(Verb::Warm { file, options }) => warm(&file, &options),
        Some(Verb::Datagen { file, set }) => datagen(&file, &set),
        Some(Verb::KeepStack { args }) => {
            keeper::run(&args).map_err(|message| format!("keep-stack: {message}"))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr().lock(), "dsproxy: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Every failure ends as a text on the standard error output.
type Outcome = Result<(), String>;

fn text(error: impl Display) -> String {
    error.to_string()
}

fn serve(file: &ConfigFile) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    start_logs(&config.log)?;
    raise_open_files();
    runtime()?.block_on(app::serve(&config)).map_err(text)
}

fn dev(file: &ConfigFile, source: Option<app::DevSource>, migrations: Option<&Path>) -> Outcome {
    let config = Config::load_embedded(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    start_logs(&config.log)?;
    raise_open_files();
    // The embedded servers die with the thread that started them: it must be this one.
    app::dev(config, source, migrations, runtime).map_err(text)
}

fn check(file: &ConfigFile) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    let report = runtime()?.block_on(app::check(&config)).map_err(text)?;
    write!(std::io::stdout().lock(), "{report}").map_err(text)
}

fn migrate(file: &ConfigFile, migrations: &Path, step: app::MigrateStep) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    let report = runtime()?.block_on(app::migrate(&config, migrations, step)).map_err(text)?;
    write!(std::io::stdout().lock(), "{report}").map_err(text)
}

fn health(file: &ConfigFile, ready: bool, timeout: Duration) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    if !config.http.enabled {
        return Err("the HTTP side is off (http.enabled = false): there is nobody to ask".to_owned());
    }
    app::probe(&config.http, ready, timeout).map_err(text)
}

fn warm(file: &ConfigFile, options: &app::WarmOptions) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    let report = runtime()?.block_on(app::warm(&config, options)).map_err(text)?;
    write!(std::io::stdout().lock(), "{report}").map_err(text)
}

fn datagen(file: &ConfigFile, set: &app::DataSet) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    let report = runtime()?.block_on(app::datagen(&config, set)).map_err(text)?;
    write!(std::io::stdout().lock(), "{report}").map_err(text)
}

fn adopt(file: &ConfigFile, dir: &Path) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    start_logs(&config.log)?;
    let report = runtime()?.block_on(app::adopt(config, dir)).map_err(text)?;
    write!(std::io::stdout().lock(), "{report}").map_err(text)
}

fn dlq(file: &ConfigFile, step: app::DlqStep) -> Outcome {
    let config = Config::load(file.path().as_deref(), &Environment::of_process()).map_err(text)?;
    let report = runtime()?.block_on(app::dlq(&config, step)).map_err(text)?;
    write!(std::io::stdout().lock(), "{report}").map_err(text)
}

/// The runtime of everything but the data path.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4)))
        .thread_name("back")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

fn start_logs(config: &LogConfig) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.level).map_err(text)?;
    let colours = std::io::stderr().is_terminal();
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

/// As many clients as the system allows; the soft limit is often far below it.
fn raise_open_files() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
