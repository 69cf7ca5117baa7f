//! Pods of a Kubernetes cluster, by the tokens of their service accounts. Each cluster has an
//! issuer of its own: one that its administrator chose, or its cloud's.

use super::DAY;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "kubernetes",
    title: "Kubernetes",
    issuers: &[
        Shape::of("https://oidc.eks.{label}.amazonaws.com/id/{slug}"),
        Shape::of("https://oidc.eks.{label}.amazonaws.com.cn/id/{slug}"),
        Shape::of(
            "https://container.googleapis.com/v1/projects/{slug}/locations/{slug}/clusters/{slug}",
        ),
        Shape::of("https://{label}.oic.prod-aks.azure.com/{uuid}/{uuid}/"),
        Shape::of("https://{host}{path}"),
    ],
    freshness: Freshness::Kept,
    // As the pod asks for; ten minutes at least.
    life_max: DAY,
    algorithms: &[Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        // A token without these is one of the old ones that never expire.
        required("kubernetes.io.namespace", Form::Text),
        required("kubernetes.io.serviceaccount.name", Form::Text),
        required("kubernetes.io.serviceaccount.uid", Form::Text),
        optional("kubernetes.io.node.name", Form::Text),
        optional("kubernetes.io.node.uid", Form::Text),
        optional("kubernetes.io.pod.name", Form::Text),
        optional("kubernetes.io.pod.uid", Form::Text),
    ],
    ids: &["kubernetes.io.serviceaccount.uid", "kubernetes.io.pod.uid", "kubernetes.io.node.uid"],
    names: &[
        named("kubernetes.io.node.name", &[&["kubernetes.io.node.uid"]]),
        named("kubernetes.io.pod.name", &[&["kubernetes.io.pod.uid"]]),
        named(
            "kubernetes.io.serviceaccount.name",
            &[&["kubernetes.io.serviceaccount.uid"], &["kubernetes.io.pod.uid"]],
        ),
        named("sub", &[&["kubernetes.io.serviceaccount.uid"], &["kubernetes.io.pod.uid"]]),
    ],
    places: &[
        "sub",
        "kubernetes.io.namespace",
        "kubernetes.io.pod.uid",
        "kubernetes.io.serviceaccount.name",
        "kubernetes.io.serviceaccount.uid",
    ],
    // The API server's own, which every token has that was asked for without an audience.
    other_audiences: &[
        Shape::of("api"),
        Shape::of("kubernetes"),
        Shape::of("https://kubernetes.default.svc"),
        Shape::of("https://kubernetes.default.svc.cluster.local"),
    ],
    jobs: &[Job { unit: "pod", claims: &["kubernetes.io.pod.uid"] }],
    traps: &[
        Trap {
            name: "recycled-names",
            rule: None,
            text: "every cluster has a namespace `default`, and an account that is deleted and \
                   made anew has the same name: pin `kubernetes.io.serviceaccount.uid`",
        },
        Trap {
            name: "deleted-pod",
            rule: None,
            text: "a token outlives its pod and its account until it expires; only the cluster \
                   itself can say that they are gone: have it asked (`[[cluster]]`), or keep \
                   `expirationSeconds` short",
        },
        Trap {
            name: "no-pod",
            rule: None,
            text: "a token of `kubectl create token` has no `kubernetes.io.pod.uid`: a rule for \
                   pods should ask for it",
        },
    ],
};
