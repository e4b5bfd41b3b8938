//! What kind of object a document, or each item of a List, holds, and how to read it as that kind.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use k8s_openapi::{Metadata, Resource};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// An object of a kind that portway reads.
#[derive(Debug)]
pub(super) enum Object {
    Service(Box<core::Service>),
    EndpointSlice(Box<discovery::EndpointSlice>),
    Node(Box<core::Node>),
    ServiceCidr(Box<networking::ServiceCIDR>),
}

impl Object {
    /// The model's kind of this object.
    pub(super) fn kind(&self) -> portway_model::Kind {
        match self {
            Self::Service(_) => portway_model::Kind::Service,
            Self::EndpointSlice(_) => portway_model::Kind::EndpointSlice,
            Self::Node(_) => portway_model::Kind::Node,
            Self::ServiceCidr(_) => portway_model::Kind::ServiceCidr,
        }
    }

    /// The object's metadata: name, namespace, labels.
    pub(super) fn metadata(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        match self {
            Self::Service(object) => object.metadata_mut(),
            Self::EndpointSlice(object) => object.metadata_mut(),
            Self::Node(object) => object.metadata_mut(),
            Self::ServiceCidr(object) => object.metadata_mut(),
        }
    }
}

/// A document's `apiVersion` and `kind`, and those of its items.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    items: Option<Vec<ItemHeader<'a>>>,
}

/// `apiVersion` and `kind` of a List's item.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemHeader<'a> {
    #[serde(borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
}

impl Header<'_> {
    /// The kinds to read the document as; an error names the field that does not say.
    pub(super) fn shape(&self) -> Result<Shape, (String, String)> {
        let missing = |field: String| (field, "is missing".to_owned());
        let kind = self.kind.as_deref().ok_or_else(|| missing("kind".to_owned()))?;
        let version = self.api_version.as_deref().ok_or_else(|| missing("apiVersion".to_owned()))?;
        let Some(of) = kind.strip_suffix("List") else { return Ok(Shape::One(Kind::of(version, kind, "")?)) };
        let items = self.items.as_deref().unwrap_or_default();
        let kinds = items.iter().enumerate().map(|(i, item)| {
            // The items of a typed list need not repeat what the list says.
            let kind = item.kind.as_deref().or((!of.is_empty()).then_some(of));
            let version = item.api_version.as_deref().or((!of.is_empty()).then_some(version));
            let kind = kind.ok_or_else(|| missing(format!("items[{i}].kind")))?;
            let version = version.ok_or_else(|| missing(format!("items[{i}].apiVersion")))?;
            Kind::of(version, kind, &format!("items[{i}]."))
        });
        Ok(Shape::List(kinds.collect::<Result<_, _>>()?))
    }
}

/// The kinds of the objects of a document.
pub(super) enum Shape {
    One(Kind),
    List(Vec<Kind>),
}

/// The kind as which an object is read.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
    /// A kind that no service proxy reads.
    Other,
}

impl Kind {
    /// The kind for an API version and a kind's name. `prefix` is the path to the object.
    fn of(version: &str, kind: &str, prefix: &str) -> Result<Self, (String, String)> {
        let (known, wanted) = match kind {
            core::Service::KIND => (Self::Service, core::Service::API_VERSION),
            discovery::EndpointSlice::KIND => (Self::EndpointSlice, discovery::EndpointSlice::API_VERSION),
            core::Node::KIND => (Self::Node, core::Node::API_VERSION),
            networking::ServiceCIDR::KIND => (Self::ServiceCidr, networking::ServiceCIDR::API_VERSION),
            _ => return Ok(Self::Other),
        };
        let group = |version: &str| version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        if version == wanted {
            Ok(known)
        } else if group(version) == group(wanted) {
            let message = format!("{version:?} of {kind} is not supported, only {wanted:?} is");
            Err((format!("{prefix}apiVersion"), message))
        } else {
            // A kind of the same name from another API group.
            Ok(Self::Other)
        }
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Vec<(String, Object)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self {
            Self::One(kind) => {
                let object = kind.deserialize(deserializer)?;
                Ok(object.into_iter().map(|object| (String::new(), object)).collect())
            }
            Self::List(kinds) => deserializer.deserialize_map(ListVisitor(kinds)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = Option<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Ok(Some(match self {
            Self::Service => Object::Service(Deserialize::deserialize(deserializer)?),
            Self::EndpointSlice => Object::EndpointSlice(Deserialize::deserialize(deserializer)?),
            Self::Node => Object::Node(Deserialize::deserialize(deserializer)?),
            Self::ServiceCidr => Object::ServiceCidr(Deserialize::deserialize(deserializer)?),
            Self::Other => {
                IgnoredAny::deserialize(deserializer)?;
                return Ok(None);
            }
        }))
    }
}

/// Reads a List's `items`, each as its kind.
struct ListVisitor(Vec<Kind>);

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<(String, Object)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                found = map.next_value_seed(ItemsSeed(&self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads the values of `items`.
struct ItemsSeed<'a>(&'a [Kind]);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<(String, Object)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // A list without items may be written as null.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<(String, Object)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        for (i, kind) in self.0.iter().enumerate() {
            match items.next_element_seed(*kind)? {
                Some(Some(object)) => found.push((format!("items[{i}]."), object)),
                Some(None) => {}
                None => break,
            }
        }
        // There are no more, since the kinds were counted in this list; some parsers must see its end.
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}
