//! Whose prefix this is: a tag of the first policy of the belt, or of a user without a key.
//! Sessions without a belt leave nothing at AWS that could bear a marker, or be taken for
//! another's.
//!
//! Invariant: another installation's marker is never replaced, and the marker's name is not one
//! that a handle can have.

use aws_sdk_iam::{Client, types::Tag};
use dayfly_backend_sdk::{Error, ErrorKind, HandlePrefix, Marker};

use crate::error::Failure;

const USER_TAG: &str = "dayfly:marker";

/// Where the marker is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Nowhere,
    /// Two prefixes may share a belt.
    Policy(&'a str),
    /// The path of our users.
    User(&'a str),
}

fn name(prefix: &HandlePrefix) -> String {
    format!("{}marker", prefix.as_str())
}

/// The key of the tag.
fn key(prefix: &HandlePrefix, place: Place<'_>) -> String {
    match place {
        Place::Policy(_) => format!("dayfly:{}", name(prefix)),
        Place::Nowhere | Place::User(_) => USER_TAG.to_owned(),
    }
}

pub(crate) async fn read(
    iam: &Client,
    prefix: &HandlePrefix,
    place: Place<'_>,
) -> Result<Option<Marker>, Error> {
    let failed = |failure: Failure| failure.into_error("the marker could not be read");
    let tags = tags(iam, prefix, place).await.map_err(failed)?;
    let Some(tags) = tags else { return Ok(None) };
    let key = key(prefix, place);
    match (tags.iter().find(|tag| tag.key == key), place) {
        (Some(tag), _) => Marker::parse(&tag.value).map(Some).ok_or_else(|| {
            let message = format!("the tag `{key}` is there and is no marker of Dayfly");
            Error::new(ErrorKind::Conflict, message)
        }),
        (None, Place::Nowhere | Place::Policy(_)) => Ok(None),
        (None, Place::User(_)) => {
            let name = name(prefix);
            let message = format!("the user `{name}` is there and is no marker of Dayfly");
            Err(Error::new(ErrorKind::Conflict, message))
        }
    }
}

/// A user is made strictly. Tags have no compare-and-set: of two installations that begin with
/// one belt and prefix in the same instant, the one that is overwritten learns it at its next
/// sweep.
pub(crate) async fn write(
    iam: &Client,
    prefix: &HandlePrefix,
    place: Place<'_>,
    marker: &Marker,
) -> Result<(), Error> {
    let failed = |failure: Failure| failure.into_error("the marker could not be written");
    let found = read(iam, prefix, place).await?;
    if let Some(found) = &found
        && found.installation != marker.installation
    {
        let message = format!("the prefix belongs to installation {}", found.installation);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let tag = Tag::builder().key(key(prefix, place)).value(marker.to_text()).build();
    let tag = tag.map_err(|_| failed(Failure::Strange("tag")))?;
    let written = match place {
        Place::Nowhere => Ok(()),
        Place::Policy(arn) => {
            let put = iam.tag_policy().policy_arn(arn).tags(tag).send().await;
            put.map(drop).map_err(Failure::from)
        }
        Place::User(path) if found.is_none() => {
            let create = iam.create_user().user_name(name(prefix)).path(path).tags(tag);
            create.send().await.map(drop).map_err(Failure::from)
        }
        Place::User(_) => {
            let put = iam.tag_user().user_name(name(prefix)).tags(tag).send().await;
            put.map(drop).map_err(Failure::from)
        }
    };
    written.map_err(failed)
}

/// None when what would have them is not there.
async fn tags(
    iam: &Client,
    prefix: &HandlePrefix,
    place: Place<'_>,
) -> Result<Option<Vec<Tag>>, Failure> {
    let found = match place {
        Place::Nowhere => return Ok(None),
        // Fifty at most, which are one page.
        Place::Policy(arn) => {
            return Ok(Some(iam.list_policy_tags().policy_arn(arn).send().await?.tags));
        }
        Place::User(_) => iam.list_user_tags().user_name(name(prefix)).send().await,
    };
    match found.map_err(Failure::from) {
        Ok(found) => Ok(Some(found.tags)),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}
