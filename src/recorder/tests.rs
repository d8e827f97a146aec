use super::*;
use crate::arm::Weight;
use crate::clock::UnixMillis;
use crate::outcome::Outcome;

fn routing(second: i64, bps: u16) -> Routing {
    Routing {
        rollout: 0,
        config_epoch: 1,
        weight: Weight::from_bps(bps).unwrap(),
        assigned: Arm::Legacy,
        arm: Arm::Legacy,
        second,
    }
}

fn sample() -> Sample {
    Sample {
        started_at: UnixMillis(0),
        rollout: Some(0),
        config_epoch: 1,
        arm: Arm::Legacy,
        assigned: Arm::Legacy,
        weight: Weight::ZERO,
        stage: 0,
        role: Role::Live,
        attempt: 1,
        outcome: Outcome::Ok,
        status: 200,
        latency_us: 0,
        ttft_us: None,
        streamed: false,
        complete: true,
        conn_reused: false,
        client_retry: false,
        dialect: Some(crate::llm::Dialect::OpenAiChat),
        model: None,
        usage: None,
        upstream_request_id: None,
        key_hash: 0,
        body_hash: 0,
        reported_cost_usd: None,
        tag: None,
        first_role: Role::Live,
    }
}

fn drain(samples: &mut Samples) -> Vec<Batch> {
    std::iter::from_fn(|| samples.queue.try_recv().ok()).collect()
}

#[test]
fn requests_that_were_routed_alike_are_one_count() {
    let (recorder, mut samples) = channel();
    let sink = recorder.sink();
    for _ in 0..300 {
        sink.routed(routing(7, 500));
        sink.routed(routing(7, 1_000));
    }
    sink.routed(routing(8, 500));
    sink.flush();
    let batches = drain(&mut samples);
    assert_eq!(batches.len(), 1);
    let expected = [
        (routing(7, 500), 300),
        (routing(7, 1_000), 300),
        (routing(8, 500), 1),
    ];
    assert_eq!(batches[0].routed, expected);
}

#[test]
fn a_count_is_handed_over_before_the_sample_of_its_request_or_with_it() {
    let (recorder, mut samples) = channel();
    let sink = recorder.sink();
    for second in 0..500 {
        sink.routed(routing(second, 500));
        sink.record(sample());
    }
    sink.flush();
    let (mut counted, mut ended) = (0, 0);
    for batch in drain(&mut samples) {
        assert!(batch.routed.len() <= ROUTINGS && batch.samples.len() <= BATCH);
        counted += batch.routed.iter().map(|(_, count)| *count).sum::<u32>() as usize;
        ended += batch.samples.len();
        assert!(ended <= counted);
    }
    assert_eq!((counted, ended), (500, 500));
}

#[test]
fn a_full_queue_drops_samples_and_keeps_counts_for_the_next_batch() {
    let (recorder, mut samples) = channel();
    let sink = recorder.sink();
    for _ in 0..QUEUE {
        sink.record(sample());
        sink.flush();
    }
    sink.routed(routing(1, 500));
    sink.record(sample());
    sink.flush();
    assert_eq!(samples.dropped(), 1);
    assert_eq!(drain(&mut samples).len(), QUEUE);
    sink.routed(routing(1, 500));
    sink.flush();
    let batches = drain(&mut samples);
    assert_eq!(batches[0].routed, [(routing(1, 500), 2)]);
    // However long the queue stays full, the buffer stays bounded.
    for second in 0..10_000 * ROUTINGS as i64 {
        sink.routed(routing(second, 500));
    }
    assert!(sink.buffer.borrow().routed.len() <= ROUTINGS);
}

#[tokio::test]
async fn learned_ids_travel_with_the_samples_and_are_counted_when_they_are_lost() {
    let id = |hash| LearnedId {
        hash,
        canary: 1,
        learned_at: UnixMillis(1),
        expires_at: UnixMillis(2),
    };
    let (recorder, mut samples) = channel();
    let sink = recorder.sink();
    sink.learned([id(1), id(2)].into_iter());
    sink.flush();
    let batch = samples.next().await.unwrap();
    assert_eq!(batch.learned, [id(1), id(2)]);
    assert!(batch.samples.is_empty());

    sink.learned((0..BATCH as u64).map(id));
    assert_eq!(samples.next().await.unwrap().learned.len(), BATCH);

    drop(samples.queue);
    sink.learned([id(3)].into_iter());
    sink.flush();
    assert_eq!(samples.dropped.load(Ordering::Relaxed), 1);
}

/// Lets the receiver keep all that is queued.
async fn keep(samples: &mut Samples) {
    tokio::select! {
        biased;
        () = samples.hold() => unreachable!("it ends only when it is dropped"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn what_is_held_comes_first_and_in_order_and_small_batches_are_joined() {
    let (recorder, mut samples) = channel();
    let sink = recorder.sink();
    for second in 0..100 {
        sink.routed(routing(second, 500));
        sink.record(sample());
        sink.flush();
        keep(&mut samples).await;
    }
    assert_eq!((samples.held(), samples.held.batches.len()), (200, 1));
    sink.routed(routing(100, 500));
    drop((sink, recorder));
    let mut seconds = Vec::new();
    while let Some(batch) = samples.next().await {
        seconds.extend(batch.routed.iter().map(|(routing, _)| routing.second));
    }
    assert_eq!(seconds, (0..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_held_is_bounded_and_the_rest_is_counted_as_dropped() {
    let (recorder, mut samples) = channel();
    let sink = recorder.sink();
    let over = 5;
    for _ in 0..HELD / BATCH + over {
        for _ in 0..BATCH {
            sink.record(sample());
        }
        keep(&mut samples).await;
    }
    assert_eq!(samples.held(), HELD);
    assert_eq!(samples.dropped(), (over * BATCH) as u64);
}
