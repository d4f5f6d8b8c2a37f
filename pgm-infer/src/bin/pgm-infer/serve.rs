//! `pgm-infer serve`: the models, the socket and the signals around [`pgm_infer::serve`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::serve::ListenerExt;
use burn::tensor::Device;
use clap::Args;
use pgm_infer::device::{DeviceList, WeightArgs};
use pgm_infer::engine::{EngineOptions, ImageEngine};
use pgm_infer::picture::{CodecFolder, GridCodec, PictureCodec, PixelLevels};
use pgm_infer::serve::{ConnectionLimits, Limits, Server, ServerPhase, router_for, serve_connections};
use pgm_infer::{Engine, ImageModel, TextModel};
use pgm_model::{ModelConfig, model_folder};
use tokio::task::JoinHandle;

use crate::devices::model_path;
use crate::listen::{Address, Bound, open_connections, parse_mode};
use crate::signals::Signals;

#[derive(Args)]
pub struct ServeArgs {
    /// A model folder, a training run (RUN, RUN@best, RUN@last, RUN@step-N) or a bundled model (demo, demo-digits), and the
    /// model's name for clients [default: the folder's]; the first is the default model
    #[cfg_attr(feature = "demo", arg(long, value_name = "DIR[=NAME]", default_values = ["demo", "demo-digits"]))]
    #[cfg_attr(not(feature = "demo"), arg(long, value_name = "DIR[=NAME]", required = true))]
    model: Vec<String>,
    /// The codec of a model of pictures, where its tokens are codes: a codec folder or a published .pt file; may be repeated,
    /// and each model takes the one whose codes it has
    #[arg(long, value_name = "FOLDER")]
    codec: Vec<PathBuf>,
    /// Name or address to listen on; unix:PATH, or a path that ends with .sock, is a Unix socket
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Permissions of the Unix socket
    #[arg(long, value_name = "OCTAL", default_value = "600", value_parser = parse_mode)]
    socket_mode: u32,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]; several, as in cuda:0,cuda:1, get a copy of each model,
    /// and a sample goes to the one with the fewest. On the CPU (flex,flex) each copy has its share of the threads
    #[arg(long, value_name = "DEVICE[,DEVICE]...", default_value = "auto")]
    device: DeviceList,
    #[command(flatten)]
    weights: WeightArgs,
    /// Samples of a model that are computed together, on each device
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_batch: usize,
    /// MiB for what is kept of rows whose clean tokens are not encoded anew in every step, for each model on each device; beyond
    /// it rows are encoded again
    #[arg(long, value_name = "N", default_value_t = 2048)]
    cache_mib: usize,
    /// Samples of a model that may wait, on all devices together; more are refused with 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,
    /// A file of API keys, one per line; clients must send one of them
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Seconds that a request may take: waiting, sampling, and sending a stream
    #[arg(long, value_name = "S", default_value_t = 300)]
    timeout: u64,
    /// Seconds that running requests have left when the server is stopped
    #[arg(long, value_name = "S", default_value_t = 30)]
    grace: u64,
    /// Seconds for which requests are still taken when the server is stopped, while /health says 503, so that a load balancer
    /// sends new ones elsewhere first
    #[arg(long, value_name = "S", default_value_t = 0)]
    drain: u64,
    /// Connections that are open at a time; less where the limit of open files is lower. Further ones wait
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_connections: usize,
    /// Seconds that the header of a request may take to arrive
    #[arg(long, value_name = "S", default_value_t = 30)]
    header_timeout: u64,
    /// Seconds that a connection may wait for its next request
    #[arg(long, value_name = "S", default_value_t = 75)]
    idle_timeout: u64,
    /// A site whose pages may use the server, like http://localhost:3000, or * for all; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// The most tokens of a text, BOS included [default: the model's trained length]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
}

/// Serves until a signal ends it.
pub fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    for (flag, value) in [
        ("--max-batch", args.max_batch as u64),
        ("--timeout", args.timeout),
        ("--max-connections", args.max_connections as u64),
        ("--header-timeout", args.header_timeout),
        ("--idle-timeout", args.idle_timeout),
    ] {
        if value == 0 {
            bail!("{flag} must be at least 1");
        }
    }
    let address = Address::parse(&args.host)?;
    let models = args.model.iter().map(|text| model_and_name(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<String> = models.iter().map(|(_, name)| name.clone()).collect();
    if let Some(name) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name)) {
        bail!("two models have the name {name}; give one another name with --model DIR=NAME");
    }
    let keys = args.api_key_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let limits = Limits {
        max_batch: args.max_batch,
        queue: args.queue,
        max_length: args.max_length,
        timeout: Duration::from_secs(args.timeout),
        ..Limits::default()
    };
    let server = Server::new(&names, limits, &keys);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the server's threads")?;
    let result = runtime.block_on(run(args, &address, &server, models, keys.is_empty()));
    // A signal does not wait for a model that is being loaded.
    runtime.shutdown_background();
    result
}

async fn run(
    args: &ServeArgs,
    address: &Address,
    server: &Arc<Server>,
    models: Vec<(PathBuf, String)>,
    open: bool,
) -> anyhow::Result<()> {
    let app = |is_local: bool| {
        router_for(server, &args.cors_origin, is_local).map_err(|message| anyhow!("--cors-origin: {message}"))
    };
    // A wrong origin is said before the socket is opened.
    let everywhere = app(false)?;
    let bound = Bound::open(address, args.port, args.socket_mode).await?;
    let limits = ConnectionLimits {
        max: open_connections(args.max_connections),
        header_timeout: Duration::from_secs(args.header_timeout),
        idle_timeout: Duration::from_secs(args.idle_timeout),
        ..ConnectionLimits::default()
    };
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let until = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    #[cfg(unix)]
    let _file;
    let mut serving = match bound {
        Bound::Tcp(listener) => {
            let address = listener.local_addr()?;
            let is_local = address.ip().is_loopback();
            if open && !is_local {
                tracing::warn!("anyone who reaches this address can use the models; --api-key-file F asks for a key");
            }
            let app = if open && is_local { app(true)? } else { everywhere };
            let listener = listener.tap_io(|connection| _ = connection.set_nodelay(true));
            tracing::info!("listening at http://{address}");
            tokio::spawn(serve_connections(listener, app, limits, until))
        }
        // Who may connect is a matter of the file's permissions, and no web site's name leads there.
        #[cfg(unix)]
        Bound::Unix(listener, file) => {
            // Until the end.
            _file = file;
            tracing::info!("listening at {address}");
            tokio::spawn(serve_connections(listener, everywhere, limits, until))
        }
    };
    let loading = tokio::task::spawn_blocking({
        let (server, devices, options) = (
            Arc::clone(server),
            args.device.clone(),
            EngineOptions {
                weights: args.weights.weights(),
                max_batch: args.max_batch,
                cache_bytes: args.cache_mib.saturating_mul(1 << 20),
                threads: args.device.threads_each(),
                ..EngineOptions::default()
            },
        );
        let codecs = args.codec.clone();
        move || load(&server, &devices, &options, &models, &codecs)
    });
    let mut signals = Signals::new()?;
    tokio::select! {
        loaded = loading => {
            let loaded = loaded.unwrap_or_else(|_| Err(anyhow!("a model cannot be loaded: the library panicked, see the lines above")));
            if let Err(error) = loaded {
                cut(server, &stop, serving).await;
                return Err(error);
            }
        }
        () = signals.next() => {
            cut(server, &stop, serving).await;
            return Ok(());
        }
        ended = &mut serving => return ended.context("the server ended"),
    }
    tracing::info!("ready");
    tokio::select! {
        () = signals.next() => {}
        ended = &mut serving => return ended.context("the server ended"),
    }
    if args.drain > 0 {
        let seconds = args.drain;
        tracing::info!("leaving: requests are taken for {seconds} s more; a second signal ends them at once");
        server.set_phase(ServerPhase::Leaving);
        tokio::select! {
            ended = &mut serving => return ended.context("the server ended"),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            () = signals.next() => {
                cut(server, &stop, serving).await;
                return Ok(());
            }
        }
    }
    tracing::info!("stopping: running requests have {} s; a second signal ends them at once", args.grace);
    server.set_phase(ServerPhase::Draining);
    let _ = stop.send(true);
    tokio::select! {
        ended = &mut serving => return ended.context("the server ended"),
        () = tokio::time::sleep(Duration::from_secs(args.grace)) => {}
        () = signals.next() => {}
    }
    cut(server, &stop, serving).await;
    Ok(())
}

// Running requests are answered with an error. A client that does not read it is not waited for.
async fn cut(server: &Server, stop: &tokio::sync::watch::Sender<bool>, serving: JoinHandle<()>) {
    server.set_phase(ServerPhase::Cut);
    let _ = stop.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(5), serving).await;
}

fn load(
    server: &Server,
    devices: &DeviceList,
    options: &EngineOptions,
    models: &[(PathBuf, String)],
    codecs: &[PathBuf],
) -> anyhow::Result<()> {
    let devices = devices.open().map_err(|message| anyhow!(message))?;
    let (device, _) = devices.first().context("--device names no device")?;
    let mut unused: Vec<&PathBuf> = codecs.iter().collect();
    for (folder, name) in models {
        let folder = model_folder::resolve(folder)?;
        let options = EngineOptions { watch: Some(server.metrics().watch(name)), ..options.clone() };
        let config = model_folder::load_config(&folder)?;
        let size = if config.image().is_some() {
            // As with generate, a codec that is meant for one model is not left out.
            let is_pixels = PixelLevels::of(&config).is_some() && (models.len() > 1 || codecs.is_empty());
            let needs_none = is_pixels || CodecFolder::within(&folder).is_some();
            let codec = if needs_none { Ok(None) } else { codec_of(&config, codecs, device) };
            let codec = codec.with_context(|| format!("model {name}"))?;
            let codec = codec.map(|(path, codec)| {
                unused.retain(|unused| *unused != path);
                Arc::new(codec) as Arc<dyn PictureCodec>
            });
            let model = ImageModel::load(&folder, codec, device).with_context(|| format!("model {name}"))?;
            let size = model.n_parameters();
            server.add_images(name, ImageEngine::on_devices(model, &devices, &options)?);
            size
        } else {
            let model = TextModel::load(&folder, device)?;
            let size = model.n_parameters();
            server.add(name, Engine::on_devices(model, &devices, &options)?);
            size
        };
        let names: Vec<&str> = devices.iter().map(|(_, name)| name.as_str()).collect();
        let threads = options.threads.map_or_else(String::new, |n| format!(", {n} threads each"));
        let (names, folder) = (names.join(", "), folder.display());
        tracing::info!("model {name}: {size} parameters of {folder} on {names}{threads}");
    }
    if let Some(path) = unused.first() {
        bail!("--codec {} belongs to no --model; leave it out", path.display());
    }
    Ok(())
}

// The codec of a model of pictures among those that are given; none for a model whose tokens are pixels.
fn codec_of<'a>(
    config: &ModelConfig,
    codecs: &'a [PathBuf],
    device: &Device,
) -> anyhow::Result<Option<(&'a PathBuf, GridCodec)>> {
    let wanted = config.image().and_then(|image| image.codec.as_deref());
    let mut others = Vec::new();
    for path in codecs {
        let codec = CodecFolder::open(path, device)?;
        // A model that does not say whose codes it has takes the only codec that is given.
        let fits = wanted.map_or(codecs.len() == 1, |wanted| wanted == codec.hash());
        if fits || codecs.len() == 1 {
            return Ok(Some((path, codec.for_model(config)?)));
        }
        others.push(format!("{} is the codec {}", path.display(), codec.hash()));
    }
    match wanted {
        _ if codecs.is_empty() => Ok(None),
        Some(wanted) => bail!("its codes are those of the codec {wanted}; {}", others.join(", ")),
        None => {
            bail!("it does not say which codec's codes it has; give one --codec, and serve the others by themselves")
        }
    }
}

// Splits `DIR[=NAME]`. A folder whose own name has an equals sign is taken as it is.
fn model_and_name(text: &str) -> anyhow::Result<(PathBuf, String)> {
    let (folder, name) = match text.rsplit_once('=') {
        Some((folder, name)) if !Path::new(text).is_dir() => (folder, Some(name.to_string())),
        _ => (text, None),
    };
    let given = Path::new(folder);
    let folder = model_path(folder).map_err(|message| anyhow!(message))?;
    if folder != given && name.is_none() {
        return Ok((folder, given.display().to_string()));
    }
    let last = || {
        // RUN@best is no folder itself; it is the name for clients as it stands.
        let is_choice = !folder.exists() && model_folder::resolve(&folder)? != folder;
        let full = if is_choice { Ok(folder.clone()) } else { folder.canonicalize() };
        let full = full.with_context(|| format!("cannot read --model {}", folder.display()))?;
        full.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .ok_or_else(|| anyhow!("--model {text} has no name; give one with --model DIR=NAME"))
    };
    let name = name.filter(|name| !name.is_empty()).map_or_else(last, Ok)?;
    Ok((folder, name))
}

fn read_keys(path: &Path) -> anyhow::Result<Vec<String>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read --api-key-file {}", path.display()))?;
    let text = text.trim_start_matches('\u{feff}');
    if let Some(line) = text.lines().position(|line| !line.trim().bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
        bail!(
            "--api-key-file {}, line {}: the header of a request carries ASCII only, so this key would never fit",
            path.display(),
            line + 1
        );
    }
    let keys: Vec<String> = text.lines().map(str::trim).filter(|key| !key.is_empty()).map(String::from).collect();
    if keys.is_empty() {
        bail!("--api-key-file {} holds no key; write one per line", path.display());
    }
    Ok(keys)
}
