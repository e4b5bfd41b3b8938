//! The pages of the metrics server (contract section 16).
//!
//! As in kube-proxy, only `/debug/flags/v`, `/metrics/slis` and `/healthz` look at the method or the query.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use k8s_openapi::jiff::Timestamp;

use super::Metrics;
use super::profile;
use super::slis::Slis;
use crate::logging;
use crate::web::{Handler, Reply, Request, at_once};

/// What the pages show besides the metrics.
#[derive(Clone, Debug)]
pub(crate) struct PagesConfig {
    /// The configuration as JSON, as `/configz` shows it; `None` if there is no such page.
    pub(crate) configz: Option<String>,
    /// The flags and their values, by name; `None` disables `/flagz` (feature gate ComponentFlagz).
    pub(crate) flagz: Option<Vec<(String, String)>>,
    /// Whether `/statusz` is there (feature gate ComponentStatusz).
    pub(crate) statusz: bool,
    /// Whether `/debug/…` is there (`enableProfiling`).
    pub(crate) profiling: bool,
}

/// Answers on the metrics address.
pub(crate) fn handler(metrics: Arc<Metrics>, config: PagesConfig) -> Handler {
    let pages = Pages { metrics, config, slis: Slis::new(), started: SystemTime::now() };
    let profiling = pages.config.profiling;
    let fast = at_once(move |request| pages.answer(&request));
    Arc::new(move |request| {
        if profiling && request.path == "/debug/pprof/profile" {
            return Box::pin(profile::answer(request.query));
        }
        fast(request)
    })
}

struct Pages {
    metrics: Arc<Metrics>,
    config: PagesConfig,
    slis: Slis,
    started: SystemTime,
}

impl Pages {
    fn answer(&self, request: &Request) -> Reply {
        match &*request.path {
            "/metrics" => match self.metrics.page() {
                Ok(page) => Reply::new(StatusCode::OK, prometheus::TEXT_FORMAT, page),
                Err(error) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            "/metrics/slis" if request.method == Method::DELETE => {
                self.slis.reset();
                Reply::text(StatusCode::OK, "metrics reset\n")
            }
            "/metrics/slis" => match self.slis.page() {
                Ok(page) => Reply::new(StatusCode::OK, prometheus::TEXT_FORMAT, page),
                Err(error) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            "/proxyMode" => Reply::text(StatusCode::OK, self.metrics.mode().as_str()),
            "/healthz" => {
                self.slis.checked();
                let verbose = request.query.split('&').any(|field| field == "verbose" || field.starts_with("verbose="));
                Reply::text(StatusCode::OK, if verbose { "[+]ping ok\nhealthz check passed\n" } else { "ok" })
            }
            "/healthz/ping" => Reply::text(StatusCode::OK, "ok"),
            "/configz" => match &self.config.configz {
                Some(json) => Reply::json(StatusCode::OK, json.clone()),
                None => Reply::not_found(),
            },
            "/statusz" if self.config.statusz => plain_only(request, || self.statusz()),
            "/flagz" => match &self.config.flagz {
                Some(flags) => plain_only(request, || flagz(flags)),
                None => Reply::not_found(),
            },
            path if self.config.profiling => debug(path, request),
            _ => Reply::not_found(),
        }
    }

    fn statusz(&self) -> String {
        let started = Timestamp::try_from(self.started).unwrap_or_default().strftime("%a %b %e %H:%M:%S UTC %Y");
        let up = self.started.elapsed().unwrap_or_default();
        let mut paths = vec!["/configz", "/healthz", "/healthz/ping", "/metrics", "/metrics/slis", "/proxyMode"];
        paths.extend(self.config.flagz.as_ref().map(|_| "/flagz"));
        paths.sort_unstable();
        format!(
            "\nportway statusz\n{UNSTABLE}\nStarted: {started}\nUp: {}\nBinary version: {}\nMode: {}\nPaths: {}\n",
            uptime(up),
            env!("CARGO_PKG_VERSION"),
            self.metrics.mode(),
            paths.join(" "),
        )
    }
}

const UNSTABLE: &str = "Warning: this page is for people who look for a fault; its format changes without notice.\n";

fn flagz(flags: &[(String, String)]) -> String {
    let lines: String = flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    format!("\nportway flags\n{UNSTABLE}\n{lines}")
}

/// Hours, minutes and seconds.
fn uptime(up: Duration) -> String {
    let seconds = up.as_secs();
    format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A page that is plain text only, for clients that take it.
fn plain_only(request: &Request, page: impl FnOnce() -> String) -> Reply {
    let takes = |range: &str| {
        matches!(range.split(';').next().unwrap_or_default().trim(), "" | "*/*" | "text/*" | "text/plain")
    };
    if request.accept.split(',').any(takes) {
        Reply::new(StatusCode::OK, "text/plain; charset=utf-8", page())
    } else {
        Reply::text(StatusCode::NOT_ACCEPTABLE, "this page is text/plain only\n")
    }
}

/// The pages for those who look for a fault (`enableProfiling`).
fn debug(path: &str, request: &Request) -> Reply {
    match path {
        "/debug/pprof" => Reply::moved("/debug/pprof/"),
        "/debug/pprof/" => Reply::new(
            StatusCode::OK,
            "text/html; charset=utf-8",
            "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/<br>\n<br>\n\
             <a href=\"profile?seconds=30\">profile</a>: where the processor's time goes, in the form of pprof\n\
             </body>\n</html>\n",
        ),
        "/debug/flags" | "/debug/flags/" => Reply::new(
            StatusCode::OK,
            "text/html; charset=utf-8",
            "<html>\n<head>\n<title>/debug/flags/</title>\n</head>\n<body>\n/debug/flags/<br>\n<br>\n\
             flags that can be set with PUT:<br>\nv\n</body>\n</html>\n",
        ),
        "/debug/flags/v" if request.method == Method::PUT => {
            let text = String::from_utf8_lossy(&request.body);
            match logging::set_verbosity(&text) {
                Ok(()) => line(StatusCode::OK, format!("successfully set klog.logging.verbosity to {text}")),
                Err(error) => {
                    line(StatusCode::BAD_REQUEST, format!("failed set klog.logging.verbosity {text}: {error}"))
                }
            }
        }
        "/debug/flags/v" => line(StatusCode::NOT_ACCEPTABLE, "unsupported http method".to_owned()),
        _ => Reply::not_found(),
    }
}

fn line(status: StatusCode, text: String) -> Reply {
    Reply::new(status, "text/plain", text + "\n")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use portway_dataplane::Mode;

    use super::*;
    use crate::web::testing::{ask, send};
    use crate::web::{bind, serve};

    fn config() -> PagesConfig {
        let configz = Some(r#"{"kubeproxy.config.k8s.io":{}}"#.to_owned());
        let flags = vec![("v".to_owned(), "0".to_owned())];
        PagesConfig { configz, flagz: Some(flags), statusz: true, profiling: true }
    }

    fn served(config: PagesConfig) -> SocketAddr {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new(Mode::Nftables, None).unwrap());
        tokio::spawn(serve(listener, handler(metrics, config)));
        address
    }

    const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";

    #[tokio::test]
    async fn the_pages_answer_as_kube_proxys() {
        let address = served(config());
        let page = ask(address, "GET", "/metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"), "{page}");
        assert!(page.contains("\nportway_queue_length 0\n"), "{page}");
        for method in ["GET", "POST"] {
            assert_eq!(
                ask(address, method, "/proxyMode").await,
                format!("HTTP/1.1 200 OK\r\n{TEXT}Content-Length: 8\r\n\r\nnftables")
            );
            assert_eq!(
                ask(address, method, "/healthz").await,
                format!("HTTP/1.1 200 OK\r\n{TEXT}Content-Length: 2\r\n\r\nok")
            );
        }
        assert_eq!(
            ask(address, "HEAD", "/healthz").await,
            format!("HTTP/1.1 200 OK\r\n{TEXT}Content-Length: 2\r\n\r\n")
        );
        assert!(ask(address, "GET", "/healthz?verbose").await.ends_with("[+]ping ok\nhealthz check passed\n"));
        assert!(ask(address, "GET", "/healthz/ping").await.ends_with("\r\n\r\nok"));
        assert_eq!(
            ask(address, "GET", "/configz").await,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Length: 30\r\n\r\n{\"kubeproxy.config.k8s.io\":{}}"
        );
        for path in ["/", "/nothing", "/metrics/", "/debug/pprof/heap"] {
            let answer = ask(address, "GET", path).await;
            assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {answer}");
            assert!(answer.ends_with("\r\n\r\n404 page not found\n"), "{path}: {answer}");
        }
    }

    #[tokio::test]
    async fn statusz_and_flagz_are_plain_text_behind_their_feature_gates() {
        let address = served(config());
        let status = ask(address, "GET", "/statusz").await;
        assert!(status.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{status}");
        assert!(status.contains("\r\n\r\n\nportway statusz\nWarning: "), "{status}");
        assert!(status.contains("\nUp: 0 hr 00 min 00 sec\n"), "{status}");
        assert!(status.contains(&format!("\nBinary version: {}\n", env!("CARGO_PKG_VERSION"))), "{status}");
        assert!(status.ends_with("Paths: /configz /flagz /healthz /healthz/ping /metrics /metrics/slis /proxyMode\n"));
        let flags = ask(address, "GET", "/flagz").await;
        assert!(flags.contains("\r\n\r\n\nportway flags\nWarning: ") && flags.ends_with("\n\nv=0\n"), "{flags}");
        for (accept, status) in [
            ("text/plain", "200"),
            ("text/html, */*;q=0.1", "200"),
            ("text/plain;charset=utf-8", "200"),
            ("application/json", "406"),
        ] {
            let request = format!("GET /statusz HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
            let answer = send(address, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{accept}: {answer}");
        }
        let address = served(PagesConfig { flagz: None, statusz: false, ..config() });
        for path in ["/statusz", "/flagz"] {
            assert!(ask(address, "GET", path).await.starts_with("HTTP/1.1 404 "), "{path}");
        }
        assert_eq!(uptime(Duration::from_secs(100 * 3600 + 62)), "100 hr 01 min 02 sec");
    }

    #[tokio::test]
    async fn the_debug_pages_are_there_with_profiling_only() {
        let with = served(config());
        let without = served(PagesConfig { profiling: false, ..config() });
        for path in ["/debug/pprof/", "/debug/flags", "/debug/flags/v", "/debug/pprof/profile"] {
            assert!(ask(without, "GET", path).await.starts_with("HTTP/1.1 404 "), "{path}");
        }
        assert!(ask(with, "GET", "/debug/pprof/").await.contains("<a href=\"profile?seconds=30\">"));
        assert!(ask(with, "GET", "/debug/pprof").await.contains("\r\nLocation: /debug/pprof/\r\n"));
        assert!(ask(with, "GET", "/debug/flags/").await.contains("\nv\n"));
        assert_eq!(
            ask(with, "GET", "/debug/flags/v").await,
            "HTTP/1.1 406 Not Acceptable\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\r\nunsupported http method\n"
        );
        let put = |body: &str| {
            let length = body.len();
            format!(
                "PUT /debug/flags/v HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        };
        let refused = send(with, &put("much")).await;
        assert!(refused.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{refused}");
        assert!(refused.contains("\r\n\r\nfailed set klog.logging.verbosity much: "), "{refused}");
    }

    #[tokio::test]
    async fn slis_count_the_checks_and_can_be_reset() {
        let address = served(config());
        ask(address, "GET", "/healthz").await;
        ask(address, "GET", "/healthz").await;
        let page = ask(address, "GET", "/metrics/slis").await;
        assert!(page.contains("\nkubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1\n"), "{page}");
        let total = "\nkubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 2\n";
        assert!(page.contains(total), "{page}");
        assert!(ask(address, "DELETE", "/metrics/slis").await.ends_with("metrics reset\n"));
        assert!(!ask(address, "GET", "/metrics/slis").await.contains("ping"));
    }
}
