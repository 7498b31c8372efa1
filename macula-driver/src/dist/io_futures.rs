//! The byte stream traits of futures-io.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_io::{AsyncRead, AsyncWrite};

use super::{DistRecvStream, DistSendStream, DistStream};

impl AsyncRead for DistRecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let bytes = ready!(self.poll_read_chunk(cx, buf.len()))?.unwrap_or_default();
        if let Some(front) = buf.get_mut(..bytes.len()) {
            front.copy_from_slice(&bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

impl AsyncWrite for DistSendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(&mut self, cx, data).map_err(Into::into)
    }

    /// Does nothing: what was written is sent without further ado.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Finishes the stream, and does not wait for the peer to have it all.
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down().map_err(Into::into))
    }
}

impl AsyncRead for DistStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        AsyncRead::poll_read(Pin::new(self.recv()), cx, buf)
    }
}

impl AsyncWrite for DistStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        DistSendStream::poll_write(self.send(), cx, data).map_err(Into::into)
    }

    /// Does nothing: what was written is sent without further ado.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Finishes the sending half, and does not wait for the peer to have it all.
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send().shut_down().map_err(Into::into))
    }
}
