//! Requests of an administrator to a Kafka: client quotas, and the deletion of a topic. Kafka's own tools do the same, but
//! each takes seconds of a core to start, and a minute to notice that the broker is away.

use std::{net::SocketAddr, time::Duration};

use kafka_protocol::{
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse, ApiKey, DeleteTopicsRequest,
        DeleteTopicsResponse, RequestHeader, ResponseHeader, TopicName,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes, encode_request_header_into_buffer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const ANSWER_MAX: Duration = Duration::from_secs(15);
const QUOTAS_VERSION: i16 = 1;
const DELETE_VERSION: i16 = 5;
const UNKNOWN_TOPIC: i16 = 3;

/// Sets a quota of a client id, or removes it.
pub async fn change_quota(
    kafka: SocketAddr,
    client_id: &'static str,
    name: &'static str,
    value: Option<f64>,
) -> Result<(), String> {
    let client = EntityData::default()
        .with_entity_type(StrBytes::from_static_str("client-id"))
        .with_entity_name(Some(StrBytes::from_static_str(client_id)));
    let change = OpData::default()
        .with_key(StrBytes::from_static_str(name))
        .with_value(value.unwrap_or_default())
        .with_remove(value.is_none());
    let entry = EntryData::default().with_entity(vec![client]).with_ops(vec![change]);
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let answer: AlterClientQuotasResponse =
        answer(kafka, (ApiKey::AlterClientQuotas, QUOTAS_VERSION), &request).await?;
    answer.entries.iter().try_for_each(|entry| check(entry.error_code))
}

/// Deletes a topic. Succeeds if there is none.
pub async fn delete_topic(kafka: SocketAddr, topic: &'static str) -> Result<(), String> {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![TopicName(StrBytes::from_static_str(topic))])
        .with_timeout_ms(10_000);
    let answer: DeleteTopicsResponse =
        answer(kafka, (ApiKey::DeleteTopics, DELETE_VERSION), &request).await?;
    let codes = answer.responses.iter().map(|response| response.error_code);
    codes.filter(|code| *code != UNKNOWN_TOPIC).try_for_each(check)
}

fn check(error_code: i16) -> Result<(), String> {
    match error_code {
        0 => Ok(()),
        code => Err(format!("Kafka answers with the error {code}")),
    }
}

async fn answer<A: Decodable + HeaderVersion>(
    kafka: SocketAddr,
    (key, version): (ApiKey, i16),
    request: &impl Encodable,
) -> Result<A, String> {
    let exchange = async {
        let header =
            RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
        let mut bytes = Vec::new();
        encode_request_header_into_buffer(&mut bytes, &header).map_err(text)?;
        request.encode(&mut bytes, version).map_err(text)?;
        let mut stream = TcpStream::connect(kafka).await.map_err(text)?;
        stream.write_i32(i32::try_from(bytes.len()).map_err(text)?).await.map_err(text)?;
        stream.write_all(&bytes).await.map_err(text)?;
        let size = stream.read_i32().await.map_err(text)?;
        let mut answer = vec![0; usize::try_from(size).map_err(text)?];
        stream.read_exact(&mut answer).await.map_err(text)?;
        let mut answer = bytes::Bytes::from(answer);
        ResponseHeader::decode(&mut answer, A::header_version(version)).map_err(text)?;
        A::decode(&mut answer, version).map_err(text)
    };
    timeout(ANSWER_MAX, exchange).await.map_err(text)?
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
