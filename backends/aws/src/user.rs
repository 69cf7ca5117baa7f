//! Users: how they are made, and how they end.
//!
//! Invariant: a key is made last, when its user has all that it may have and no more; and a user
//! whose end has begun can do nothing, whatever of it is left.

use std::collections::BTreeSet;

use aws_sdk_iam::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{StatusType, Tag},
};
use dayfly_backend_sdk::{Handle, HandlePrefix, MintRequest, Secret};

use crate::{credential::Keys, error::Failure, label, template::UserRecipe};

/// The policy of a user's own rights, and the one that takes all of them away.
const RIGHTS: &str = "dayfly-rights";
const FENCE: &str = "dayfly-fence";
const NOTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#;

pub(crate) async fn mint(
    iam: &Client,
    path: &str,
    recipe: &UserRecipe,
    request: &MintRequest<'_>,
) -> Result<Keys, Failure> {
    let name = request.handle.as_str();
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    let tags = label::tags(&recipe.tags, request.lease, request.principal).into_iter().map(tag);
    let tags = tags.collect::<Result<Vec<_>, _>>().map_err(|_| Failure::Strange("tag"))?;
    // Strict: a name that is there is an error.
    let create = iam.create_user().user_name(name).path(path).set_tags(Some(tags));
    create.set_permissions_boundary(recipe.boundary.clone()).send().await?;
    for arn in &recipe.policy_arns {
        iam.attach_user_policy().user_name(name).policy_arn(arn).send().await?;
    }
    for group in &recipe.groups {
        iam.add_user_to_group().user_name(name).group_name(group).send().await?;
    }
    if let Some(policy) = &recipe.policy {
        let put = iam.put_user_policy().user_name(name).policy_name(RIGHTS);
        put.policy_document(policy).send().await?;
    }
    let key = iam.create_access_key().user_name(name).send().await?.access_key;
    let key = key.ok_or(Failure::Strange("access key"))?;
    Ok(Keys {
        access_key_id: key.access_key_id,
        secret_access_key: Secret::new(key.secret_access_key),
        session_token: None,
        expiration: None,
    })
}

/// Fenced, so that neither a key nor a session of it does anything; its keys off and deleted;
/// all that hangs on it taken off; deleted; looked for. What is gone already is no error: the
/// answer is whether it was there.
pub(crate) async fn end(iam: &Client, handle: &Handle) -> Result<bool, Failure> {
    let name = handle.as_str();
    let fence = iam.put_user_policy().user_name(name).policy_name(FENCE);
    let fenced = fence.policy_document(NOTHING).send().await;
    if !there(fenced.map(drop))? {
        return Ok(false);
    }
    let keys = iam.list_access_keys().user_name(name).send().await?.access_key_metadata;
    for id in keys.into_iter().filter_map(|key| key.access_key_id) {
        let off = iam.update_access_key().user_name(name).access_key_id(&id);
        there(off.status(StatusType::Inactive).send().await.map(drop))?;
        let delete = iam.delete_access_key().user_name(name).access_key_id(id);
        there(delete.send().await.map(drop))?;
    }
    there(iam.delete_login_profile().user_name(name).send().await.map(drop))?;
    strip(iam, name).await?;
    match there(iam.delete_user().user_name(name).send().await.map(drop)) {
        Err(failure) if failure.is_in_use() => {
            // What a user can only have made for itself.
            devices(iam, name).await?;
            there(iam.delete_user().user_name(name).send().await.map(drop))?;
        }
        deleted => {
            deleted?;
        }
    }
    if exists(iam, handle).await? {
        return Err(Failure::Survived("the user is still there"));
    }
    Ok(true)
}

/// Groups and policies; the fence goes last.
async fn strip(iam: &Client, name: &str) -> Result<(), Failure> {
    let groups = iam.list_groups_for_user().user_name(name).send().await?.groups;
    for group in groups {
        let leave = iam.remove_user_from_group().user_name(name).group_name(group.group_name);
        there(leave.send().await.map(drop))?;
    }
    let mut pages = iam.list_attached_user_policies().user_name(name).into_paginator().send();
    while let Some(page) = pages.next().await {
        let attached = page?.attached_policies.unwrap_or_default();
        for arn in attached.into_iter().filter_map(|policy| policy.policy_arn) {
            let detach = iam.detach_user_policy().user_name(name).policy_arn(arn);
            there(detach.send().await.map(drop))?;
        }
    }
    let mut policies: Vec<String> = Vec::new();
    let mut pages = iam.list_user_policies().user_name(name).into_paginator().send();
    while let Some(page) = pages.next().await {
        policies.extend(page?.policy_names);
    }
    policies.sort_by_key(|policy| policy == FENCE);
    for policy in policies {
        let delete = iam.delete_user_policy().user_name(name).policy_name(policy);
        there(delete.send().await.map(drop))?;
    }
    Ok(())
}

/// Other ways in, which keep a user from being deleted.
async fn devices(iam: &Client, name: &str) -> Result<(), Failure> {
    let found = iam.list_mfa_devices().user_name(name).send().await?.mfa_devices;
    for serial in found.into_iter().map(|device| device.serial_number) {
        let off = iam.deactivate_mfa_device().user_name(name).serial_number(serial);
        there(off.send().await.map(drop))?;
    }
    let found = iam.list_ssh_public_keys().user_name(name).send().await?.ssh_public_keys;
    for id in found.unwrap_or_default().into_iter().map(|key| key.ssh_public_key_id) {
        let delete = iam.delete_ssh_public_key().user_name(name).ssh_public_key_id(id);
        there(delete.send().await.map(drop))?;
    }
    let found = iam.list_signing_certificates().user_name(name).send().await?.certificates;
    for id in found.into_iter().map(|certificate| certificate.certificate_id) {
        let delete = iam.delete_signing_certificate().user_name(name).certificate_id(id);
        there(delete.send().await.map(drop))?;
    }
    let found = iam.list_service_specific_credentials().user_name(name).send().await?;
    let found = found.service_specific_credentials.unwrap_or_default();
    for id in found.into_iter().map(|one| one.service_specific_credential_id) {
        let delete = iam.delete_service_specific_credential().user_name(name);
        there(delete.service_specific_credential_id(id).send().await.map(drop))?;
    }
    Ok(())
}

pub(crate) async fn exists(iam: &Client, handle: &Handle) -> Result<bool, Failure> {
    there(iam.get_user().user_name(handle.as_str()).send().await.map(drop))
}

/// Users of ours, in order.
pub(crate) async fn list(
    iam: &Client,
    path: &str,
    prefix: &HandlePrefix,
) -> Result<BTreeSet<Handle>, Failure> {
    let mut ours = BTreeSet::new();
    let mut pages = iam.list_users().path_prefix(path).max_items(1_000).into_paginator().send();
    while let Some(page) = pages.next().await {
        let names = page?.users.into_iter().map(|user| user.user_name);
        // Exactly the shape of our handles: somebody's user that happens to begin like them must
        // not be swept away.
        let names = names.filter(|name| prefix.lease_of(name).is_some());
        ours.extend(names.filter_map(|name| Handle::parse(name).ok()));
    }
    Ok(ours)
}

/// Whether it is there, where "no such entity" is an answer.
fn there<E>(answer: Result<(), SdkError<E>>) -> Result<bool, Failure>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer.map_err(Failure::from) {
        Ok(()) => Ok(true),
        Err(failure) if failure.is_not_found() => Ok(false),
        Err(failure) => Err(failure),
    }
}
