//! What each host is set up with, at the beginning and after every restart.

use std::{sync::Arc, time::Duration};

use macula_proto::{
    dist::{handshake::HandshakeConfig, pool::Ordering},
    endpoint::{DistConfig, PeerListenConfig, RelayClientConfig},
    identity::Identity,
    peering::PeeringConfig,
    quic::{
        DatagramSize, DialConfig, EndpointConfig, ListenConfig, ResetKey, TransportConfig, alpn,
        tls::{ClientTls, ServerTls, Trust},
    },
    rpc::{RpcConfig, router::RouterConfig},
    sim::{HostConfig, HostId},
    tunnel::{
        Name,
        client::{session::SessionConfig, supervisor::SupervisorConfig},
        relay::RelayConfig,
    },
    wire::etf::Atom,
};

use super::{HostState, Run, calls};

/// Plain connections.
pub(super) const PLAIN: &[u8] = b"plain";

pub(super) fn name(host: HostId) -> Name {
    Name::from(host.to_string().as_str())
}

pub(super) fn atom(host: HostId) -> Atom {
    Atom::new(format!("{host}@swarm")).unwrap()
}

pub(super) fn peering(host: HostId) -> PeeringConfig {
    PeeringConfig::new(Arc::new(Identity::from_seed(&[host.get() as u8; 32])))
}

impl Run {
    pub(super) fn build(&mut self) {
        let hosts = self.plan.relays + self.plan.nodes;
        self.world.set_default_link(self.plan.link);
        for number in 0..hosts {
            let mut endpoint = EndpointConfig::default();
            if self.plan.reset_keys {
                endpoint.reset_key = Some(ResetKey::new([number as u8 + 1; 32]));
            }
            let config = HostConfig {
                endpoint,
                port: self.plan.ports[number as usize],
                nat: self.plan.nats[number as usize],
                ..HostConfig::default()
            };
            self.world.add(config).unwrap();
            self.hosts.push(HostState::default());
        }
        for host in self.world.hosts() {
            self.boot(host);
        }
        for (token, at) in self.plan.times.iter().enumerate() {
            self.world.wake_at(*at, token as u64);
        }
        for (at, fault) in &self.plan.faults {
            self.world.schedule(*at, *fault);
        }
        self.world.wake_at(Duration::from_secs(1), u64::MAX);
    }

    pub(super) fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::relay();
        transport.idle_timeout = Some(self.plan.idle);
        transport.keep_alive = Some(self.plan.idle / 3);
        transport.datagram_size = DatagramSize::UpTo(1452);
        transport
    }

    /// For plain connections. Those of a host resume each other's sessions, and send early if the other side lets them.
    pub(super) fn plain_dial_config(&mut self, host: HostId) -> Option<DialConfig> {
        let index = host.get() as usize;
        if self.hosts[index].plain.is_none() {
            self.hosts[index].plain = self.dial_config(host, PLAIN);
        }
        self.hosts[index].plain.clone()
    }

    pub(super) fn dial_config(&mut self, host: HostId, alpn: &[u8]) -> Option<DialConfig> {
        let transport = self.transport();
        let early = self.plan.early && alpn == PLAIN;
        let config = self.world.with(host, |endpoint, _| {
            let tls = ClientTls::new(Trust::Insecure).alpn([alpn]).early_data(early);
            let mut dial = DialConfig::new(tls.build(endpoint.quic().clock()).unwrap());
            dial.transport = transport;
            dial
        });
        config.ok()
    }

    fn listen(&mut self, host: HostId, alpns: &[&[u8]]) {
        let credentials = self.world.credentials("host");
        let transport = self.transport();
        let early = self.plan.early && alpns.contains(&PLAIN);
        let listening = self.world.with(host, |endpoint, _| {
            let tls = ServerTls::new(credentials)
                .alpn(alpns.iter().copied())
                .early_data(early);
            let mut listen = ListenConfig::new(tls.build(endpoint.quic().clock()).unwrap());
            listen.transport = transport;
            endpoint.quic().listen(listen).unwrap();
        });
        listening.unwrap();
    }

    pub(super) fn boot(&mut self, host: HostId) {
        let number = host.get();
        if number < self.plan.relays {
            self.listen(host, &[alpn::MACULA_DIST, alpn::MACULA]);
            let routers = self.plan.routers;
            let serving = self.world.with(host, |endpoint, _| {
                endpoint.serve_relay(RelayConfig::default());
                if routers {
                    endpoint.serve_router(RouterConfig::default());
                }
            });
            return serving.unwrap();
        }
        if number < self.plan.relays + self.plan.stations {
            self.listen(host, &[alpn::MACULA, alpn::ERLANG_DIST, PLAIN]);
        }
        let client = self.client_config(host);
        let dist = self.dist_config(host);
        let rpc = self.rpc_config(host);
        let booted = self.world.with(host, |endpoint, now| {
            endpoint.serve_peers(PeerListenConfig::new(peering(host)));
            endpoint.serve_rpc(rpc);
            endpoint.serve_dist(dist);
            for (name, kind) in calls::PROCEDURES {
                endpoint.advertise(name, kind);
            }
            endpoint.relay_client(now, client).unwrap()
        });
        self.hosts[number as usize].client = Some(booted.unwrap());
    }

    fn client_config(&mut self, host: HostId) -> RelayClientConfig {
        let mut relays: Vec<_> = (0..self.plan.relays).map(HostId::new).collect();
        let turns = host.get() as usize % relays.len();
        // Names are known at one relay only.
        if self.plan.scattered {
            relays.rotate_left(turns);
        }
        let addresses = relays.iter().map(|relay| self.world.address(*relay).to_string());
        let relays = addresses.map(|address| address.parse().unwrap()).collect();
        RelayClientConfig {
            relays,
            dial: self.dial_config(host, alpn::MACULA_DIST).unwrap(),
            session: SessionConfig::new(name(host)),
            supervisor: SupervisorConfig::default(),
        }
    }

    fn dist_config(&self, host: HostId) -> DistConfig {
        let creation = self.hosts[host.get() as usize].start as u32 + 1;
        let handshake = HandshakeConfig::new(atom(host), creation, "swarm".into());
        let mut config = DistConfig::new(handshake, ClientTls::new(Trust::Insecure));
        config.transport = self.transport();
        config.controller.net_tick = Some(self.plan.idle * 2);
        if self.plan.seed.is_multiple_of(2) {
            config.controller.pool = config.controller.pool.between_own(Ordering::Keyed);
        }
        config
    }

    pub(super) fn rpc_config(&self, host: HostId) -> RpcConfig {
        let mut config = RpcConfig::new([host.get() as u8; 32]);
        config.stream_per_call = !self.plan.one_stream_for_calls;
        // Where everything has to succeed, nobody may give up as long as what lies in front can still be on its way.
        if self.plan.gentle {
            config.call_timeout = config.call_timeout.max(self.plan.reply_bound());
        }
        config
    }
}
