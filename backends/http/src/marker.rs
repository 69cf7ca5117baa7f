//! The installation's marker, where an API has a place for it.
//!
//! Invariant: without a place it says nothing of other installations, and then nothing is ended
//! for its name alone: the list is not declared, unless the configuration says that the prefix is
//! ours.

use std::sync::PoisonError;

use dayfly_backend_sdk::{Error, ErrorKind, Marker};

use crate::{backend::HttpBackend, check::Marking, error::Failure, values::Values};

impl HttpBackend {
    pub(crate) async fn read_marker(&self) -> Result<Option<Marker>, Error> {
        let Some(marking) = &self.requests.marker else {
            // This process alone remembers it.
            return Ok(self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clone());
        };
        let read = self.marker_text(marking).await;
        let text = read.map_err(|failure| failure.into_error("the marker could not be read"))?;
        let Some(text) = text else { return Ok(None) };
        Marker::parse(&text).map(Some).ok_or_else(|| {
            let message = "what stands where the marker should be is no marker of Dayfly";
            Error::new(ErrorKind::Conflict, message)
        })
    }

    async fn marker_text(&self, marking: &Marking) -> Result<Option<String>, Failure> {
        let ready = marking.read.ready(self.api.base(), &Values::default())?;
        let answer = self.api.ask(ready).await?;
        if marking.read.is_gone(&answer) {
            return Ok(None);
        }
        let answer = marking.read.good(answer)?;
        // An empty text has no marker of anybody.
        let text = answer.at(Some(&marking.text)).map(|text| text.as_str().unwrap_or("?"));
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// An API has no compare-and-set: two installations that begin with one prefix in the same
    /// instant both write, and the one that is overwritten learns it at its next sweep.
    pub(crate) async fn write_marker(&self, marker: &Marker) -> Result<(), Error> {
        if let Some(found) = self.read_marker().await?
            && found.installation != marker.installation
        {
            let message = format!("the prefix belongs to installation {}", found.installation);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let Some(marking) = &self.requests.marker else {
            let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            *remembered = Some(marker.clone());
            return Ok(());
        };
        let written = self.put_marker(marking, &marker.to_text()).await;
        written.map_err(|failure| failure.into_error("the marker could not be written"))
    }

    async fn put_marker(&self, marking: &Marking, text: &str) -> Result<(), Failure> {
        let values = Values { marker: Some(text), ..Values::default() };
        let answer = self.api.ask(marking.write.ready(self.api.base(), &values)?).await?;
        marking.write.good(answer).map(drop)
    }
}
