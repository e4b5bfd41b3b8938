//! The loop that brings one family of the kernel to the desired state from whatever it holds: observe, stage, write, and
//! set aside the Services that the kernel refuses.
//!
//! A Service whose objects are refused first falls back to its earlier plan. If that is refused too, or there is none,
//! the Service is set aside, and everything else is written without it. So one object that the kernel refuses holds up
//! nothing but its own Service.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use portway_model::ServiceName;

use crate::report::{DataplaneError, FamilyReport, Refused};

/// Refusals that are set aside on one observation before the family as a whole counts as failed. A mode that names all
/// refused objects at once needs few rounds: only refusals that follow from others take another.
const MAX_ROUNDS: u32 = 16;

/// How a mode observes, writes and explains refusals. [`reconcile`] calls the steps in the order of this trait.
pub(crate) trait Steps {
    /// What the kernel holds.
    type Observed;
    /// What is to be written so that the kernel holds what is desired.
    type Staged;
    /// Why a write failed.
    type Rejected;

    /// Observations of one call. The last one is taken as it is, even if the kernel changes meanwhile.
    const MAX_OBSERVATIONS: u32;
    /// Refused objects of one call; with one more the family as a whole fails.
    const MAX_REFUSED: usize;

    /// Reads what the kernel holds.
    fn observe(&mut self, report: &mut FamilyReport) -> Result<Self::Observed, DataplaneError>;

    /// Diffs what the kernel holds against the desired state. Called again on the same observation after a Service has
    /// been set aside, unless [`Blame::Services`] asks for a new one.
    fn stage(&mut self, observed: &mut Self::Observed, report: &mut FamilyReport) -> Self::Staged;

    /// Writes. `unchanged`: only if nobody has changed the kernel since it was observed, where the kernel can check it.
    fn write(
        &mut self,
        staged: &Self::Staged,
        unchanged: bool,
        report: &mut FamilyReport,
    ) -> Result<(), Self::Rejected>;

    /// Finds the Services whose objects made a write fail.
    fn blame(&mut self, staged: &Self::Staged, rejected: Self::Rejected, report: &mut FamilyReport) -> Blame;

    /// Whether an earlier plan of this Service is known that differs from the desired one.
    fn has_earlier_plan(&self, service: &ServiceName) -> bool;

    /// Takes a refused Service out of the desired state.
    fn fall_back(&mut self, service: &ServiceName, to: Fallback);

    /// The error of a kernel that was changed by others under every observation.
    fn keeps_changing(&self) -> DataplaneError;
}

/// What replaces the desired state of a Service that the kernel refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// The plan that the Service had before.
    Earlier,
    /// No plan: the mode leaves the Service out, or leaves what the kernel holds of it.
    Aside,
}

/// Why a write failed.
pub(crate) enum Blame {
    /// Somebody has changed the kernel since it was observed.
    Stale,
    /// The kernel refused objects of these Services. `observe`: a part of the write may be done, so the kernel is
    /// observed again before the rest is staged.
    Services { refused: Vec<Refused>, observe: bool },
    /// The kernel refused an object that belongs to no Service, which others may have changed since it was observed.
    Nobody(DataplaneError),
    /// The write failed for another reason than its content: a lock, a tool that died, a socket.
    Other(DataplaneError),
}

/// Brings the kernel to the desired state, and returns what was written last. Refused objects are in the report.
pub(crate) fn reconcile<S: Steps>(steps: &mut S, report: &mut FamilyReport) -> Result<S::Staged, DataplaneError> {
    let mut fallbacks = BTreeMap::new();
    let mut total = 0;
    for observation in 1..=S::MAX_OBSERVATIONS {
        let last = observation == S::MAX_OBSERVATIONS;
        let mut observed = steps.observe(report)?;
        for round in 1.. {
            let staged = steps.stage(&mut observed, report);
            let Err(rejected) = steps.write(&staged, !last, report) else { return Ok(staged) };
            match steps.blame(&staged, rejected, report) {
                Blame::Stale => break,
                Blame::Nobody(_) if !last => break,
                Blame::Nobody(error) | Blame::Other(error) => return Err(error),
                Blame::Services { mut refused, observe } => {
                    total += refused.len();
                    if (round >= MAX_ROUNDS || total > S::MAX_REFUSED) && !refused.is_empty() {
                        return Err(refused.swap_remove(0).error);
                    }
                    set_aside(steps, refused, &mut fallbacks, report);
                    if observe {
                        break;
                    }
                }
            }
        }
    }
    Err(steps.keeps_changing())
}

/// Takes refused Services back to their earlier plan, and if that is refused too, out of the desired state.
fn set_aside<S: Steps>(
    steps: &mut S,
    refused: Vec<Refused>,
    fallbacks: &mut BTreeMap<ServiceName, Fallback>,
    report: &mut FamilyReport,
) {
    let services: BTreeSet<&ServiceName> = refused.iter().map(|refused| &refused.service).collect();
    for service in services {
        let fallback = match fallbacks.get(service) {
            None if steps.has_earlier_plan(service) => Fallback::Earlier,
            _ => Fallback::Aside,
        };
        if fallbacks.insert(service.clone(), fallback) == Some(Fallback::Aside) {
            tracing::warn!(%service, "the kernel refused an object of a Service that is set aside already");
        }
        steps.fall_back(service, fallback);
    }
    // The first refused object of a Service stands for it.
    let mut known: HashSet<ServiceName> = report.refused.iter().map(|refused| refused.service.clone()).collect();
    report.refused.extend(refused.into_iter().filter(|refused| known.insert(refused.service.clone())));
}

#[cfg(test)]
mod tests {
    use std::io;

    use portway_model::Family;

    use super::*;

    /// Steps whose writes fail as scripted.
    #[derive(Default)]
    struct Scripted {
        /// What the next writes are refused with; further ones succeed.
        rejections: Vec<Blame>,
        /// Services with an earlier plan.
        earlier: Vec<ServiceName>,
        observations: u32,
        fallbacks: Vec<(String, Fallback)>,
    }

    impl Steps for Scripted {
        type Observed = ();
        type Staged = ();
        type Rejected = Blame;

        const MAX_OBSERVATIONS: u32 = 3;
        const MAX_REFUSED: usize = 4;

        fn observe(&mut self, _: &mut FamilyReport) -> Result<(), DataplaneError> {
            self.observations += 1;
            Ok(())
        }

        fn stage(&mut self, (): &mut (), _: &mut FamilyReport) {}

        fn write(&mut self, (): &(), _: bool, _: &mut FamilyReport) -> Result<(), Blame> {
            if self.rejections.is_empty() { Ok(()) } else { Err(self.rejections.remove(0)) }
        }

        fn blame(&mut self, (): &(), rejected: Blame, _: &mut FamilyReport) -> Blame {
            rejected
        }

        fn has_earlier_plan(&self, service: &ServiceName) -> bool {
            self.earlier.contains(service)
        }

        fn fall_back(&mut self, service: &ServiceName, to: Fallback) {
            self.fallbacks.push((service.name.to_string(), to));
        }

        fn keeps_changing(&self) -> DataplaneError {
            error("it keeps changing")
        }
    }

    fn error(text: &str) -> DataplaneError {
        DataplaneError::Kernel { operation: "write".to_owned(), source: io::Error::other(text.to_owned()) }
    }

    fn refuses(names: &[&str], observe: bool) -> Blame {
        let refused = |name: &&str| Refused {
            service: ServiceName::new("ns", *name),
            object: format!("object of {name}"),
            error: error("no room"),
        };
        Blame::Services { refused: names.iter().map(refused).collect(), observe }
    }

    fn run(steps: &mut Scripted) -> (Result<(), DataplaneError>, FamilyReport) {
        let mut report = FamilyReport::new(Family::V4);
        (reconcile(steps, &mut report), report)
    }

    #[test]
    fn a_refused_service_falls_back_to_its_earlier_plan_and_then_is_set_aside() {
        let rejections = vec![refuses(&["old", "new"], false), refuses(&["old"], false)];
        let earlier = vec![ServiceName::new("ns", "old")];
        let mut steps = Scripted { rejections, earlier, ..Scripted::default() };
        let (result, report) = run(&mut steps);
        result.expect("the rest is written");
        let fallbacks = [("new", Fallback::Aside), ("old", Fallback::Earlier), ("old", Fallback::Aside)];
        assert_eq!(steps.fallbacks, fallbacks.map(|(name, to)| (name.to_owned(), to)));
        assert_eq!((steps.observations, report.refused.len()), (1, 2), "each Service is reported once");
    }

    #[test]
    fn a_write_that_may_be_half_done_is_observed_again() {
        let rejections = vec![refuses(&["a"], true), Blame::Stale];
        let mut steps = Scripted { rejections, ..Scripted::default() };
        run(&mut steps).0.expect("the third observation holds");
        assert_eq!(steps.observations, 3);
    }

    #[test]
    fn what_belongs_to_no_service_fails_only_on_the_last_observation() {
        let rejections = || [error("one"), error("two"), error("three")].map(Blame::Nobody);
        let mut steps = Scripted { rejections: rejections().into_iter().take(2).collect(), ..Scripted::default() };
        run(&mut steps).0.expect("the third observation holds");
        let mut steps = Scripted { rejections: rejections().into(), ..Scripted::default() };
        assert!(run(&mut steps).0.expect_err("it is refused").to_string().contains("three"));
    }

    #[test]
    fn too_many_refusals_fail_the_family() {
        let mut steps = Scripted { rejections: vec![refuses(&["a", "b", "c", "d"], false)], ..Scripted::default() };
        run(&mut steps).0.expect("as many as are allowed");
        let mut steps =
            Scripted { rejections: vec![refuses(&["a", "b", "c", "d", "e"], false)], ..Scripted::default() };
        assert!(run(&mut steps).0.is_err());
        let again = || refuses(&["a"], true);
        let mut steps = Scripted { rejections: vec![again(), again(), again()], ..Scripted::default() };
        assert!(run(&mut steps).0.expect_err("observed too often").to_string().contains("keeps changing"));
    }

    #[test]
    fn a_failure_that_is_not_about_the_content_ends_the_call() {
        let mut steps = Scripted { rejections: vec![Blame::Other(error("lock"))], ..Scripted::default() };
        assert!(run(&mut steps).0.expect_err("it fails").to_string().contains("lock"));
        assert_eq!(steps.observations, 1);
    }
}
