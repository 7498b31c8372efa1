//! Calls on smol.

use std::time::Duration;

use macula_smol::{
    DialConfig, Endpoint, ListenConfig, Options, alpn, entropy,
    rpc::{CallError, Chunk, Kind, Mode, RpcConfig, Value},
    tls::{ClientTls, Credentials, SelfSigned, ServerTls, Trust},
};
use smol::future::FutureExt;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    let late = async {
        smol::Timer::after(Duration::from_secs(60)).await;
        panic!("nothing here takes a minute")
    };
    future.or(late).await
}

#[test]
fn calls_are_made_and_served() {
    smol::block_on(soon(async {
        let credentials = Credentials::self_signed(&entropy().unwrap(), &SelfSigned::default()).unwrap();
        let pin = credentials.pin();
        let server = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
        let tls = ServerTls::new(credentials).alpn([alpn::MACULA]);
        let tls = tls.build(server.clock()).unwrap();
        server.listen(ListenConfig::new(tls)).unwrap();
        server.serve_rpc(RpcConfig::new([1; 32]));
        server.advertise("echo", Mode::Bidi);
        server.advertise("double", Kind::Unary);
        let address = server.local_addr();
        let serving = smol::spawn(async move {
            while let Some(mut call) = server.accept_call().await {
                if call.kind() == Kind::Unary {
                    let number: u64 = call.args_as().unwrap();
                    call.set_reply(&(2 * number)).unwrap();
                    continue;
                }
                while let Some(chunk) = call.recv().await.unwrap() {
                    call.send(chunk).await.unwrap();
                }
                call.set_reply(()).unwrap();
                call.close();
            }
        });

        let client = Endpoint::bind("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
        let tls = ClientTls::new(Trust::Pins(vec![pin])).alpn([alpn::MACULA]);
        let dial = DialConfig::new(tls.build(client.clock()).unwrap());
        let link = client.connect_rpc(&dial, address, "localhost", RpcConfig::new([2; 32]));
        let link = link.await.unwrap();
        let mut call = link.open("echo", Mode::Bidi, ()).await.unwrap();
        for number in 0..100u64 {
            call.send_term(&number).await.unwrap();
            assert_eq!(call.recv().await, Ok(Some(Chunk::Term(Value::Uint(number)))));
        }
        call.finish();
        assert_eq!(call.recv().await, Ok(None));
        assert_eq!(call.reply().await, Ok(Value::Null));
        assert_eq!(link.call_as::<u64>("double", &21).await, Ok(42));
        let error = link.call("nobody", ()).await.unwrap_err();
        assert!(matches!(error, CallError::Failed(fault) if fault.code == "not_found"));
        drop(serving);
    }));
}
