%% The part of the real-BEAM test that runs inside each node.
%%
%% The harness writes one command a line to standard input, `ID COMMAND ARGUMENT...`, and reads answers and
%% events from standard output; both start with `#macula` so that the node's own log lines cannot be mistaken
%% for them. Every command runs in a process of its own: a dial that hangs does not hold up the next command.
%% The node stops when its standard input ends, so it never outlives the harness.
%%
%% Only kernel and stdlib are used: Debian's erlang-base has no crypto application.
-module(macula_beam).
-behaviour(gen_server).
-export([start/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

start() ->
    {ok, _} = gen_server:start({local, ?MODULE}, ?MODULE, [], []),
    Parent = self(),
    spawn(fun() -> watch(Parent) end),
    receive watching -> ok end,
    spawn(fun read/0),
    say("ready ~s ~s", [node(), os:getpid()]).

%% Commands ---------------------------------------------------------------------------------------------------

read() ->
    case io:get_line("") of
        Line when is_list(Line) ->
            [Id, Name | Arguments] = string:lexemes(string:trim(Line), " "),
            spawn(fun() -> run(Id, list_to_atom(Name), Arguments) end),
            read();
        _EofOrError ->
            erlang:halt(0, [{flush, false}])
    end.

run(Id, Name, Arguments) ->
    put(id, Id),
    try command(Name, Arguments) of
        Answer -> say("reply ~s ok ~ts", [Id, Answer])
    catch
        Class:Reason:Stack -> say("reply ~s failed ~0p", [Id, {Class, Reason, Stack}])
    end.

command(ping, [Node]) ->
    atom_to_list(net_adm:ping(list_to_atom(Node)));
%% Dials at a given wall-clock time (microseconds since 1970), so that two nodes can dial at one moment.
command(dial_at, [Node, Time]) ->
    spin_until(list_to_integer(Time)),
    atom_to_list(net_kernel:connect_node(list_to_atom(Node)));
command(disconnect, [Node]) ->
    atom_to_list(erlang:disconnect_node(list_to_atom(Node)));
command(nodes, []) ->
    lists:join($,, [atom_to_list(Node) || Node <- lists:sort(nodes())]);
command(bulk, [Node, Size, Seed]) ->
    bulk(list_to_atom(Node), list_to_integer(Size), list_to_integer(Seed));
command(calls, [Node, Count]) ->
    calls(list_to_atom(Node), list_to_integer(Count));
command(erpc, [Node, Count]) ->
    Peer = list_to_atom(Node),
    [Expected = erpc:call(Peer, erlang, phash2, [{I, node()}])
     || I <- lists:seq(1, list_to_integer(Count)), Expected <- [erlang:phash2({I, node()})]],
    Peer = rpc:call(Peer, erlang, node, []),
    Count;
%% Keeps the connection up from now on, as a cluster-forming library would: a dial every half second.
command(keep, [Node]) ->
    Peer = list_to_atom(Node),
    spawn(fun() -> keep(Peer) end),
    "keeping";
%% What the distribution socket has carried: bytes and packets in, bytes and packets out.
command(traffic, [Node]) ->
    {_, Port} = lists:keyfind(list_to_atom(Node), 1, erlang:system_info(dist_ctrl)),
    {ok, Stats} = inet:getstat(Port, [recv_oct, recv_cnt, send_oct, send_cnt]),
    lists:join($ , [integer_to_list(Value) || {_, Value} <- Stats]);
%% Numbers in order, to a registered name.
command(flood, [Node, Name, Count]) ->
    To = {list_to_atom(Name), list_to_atom(Node)},
    [To ! I || I <- lists:seq(1, list_to_integer(Count))],
    Count;
%% A message and a call to a registered name that sends everything back.
command(echoed, [Node, Name]) ->
    To = {list_to_atom(Name), list_to_atom(Node)},
    Message = {self(), hello, #{list => [1, 2.5, "text"], <<"bytes">> => 1 bsl 70}},
    To ! Message,
    receive Message -> ok end,
    Message = gen_server:call(To, Message),
    "echoed";
%% A registered process that ends with the reason it is told.
command(spawn_named, [Name]) ->
    Parent = self(),
    spawn(fun() ->
        register(list_to_atom(Name), self()),
        Parent ! registered,
        receive {stop, Reason} -> exit(Reason) end
    end),
    receive registered -> Name end;
%% Waits for the end of a registered process that it monitors, and of the same process by its pid.
command(watch, [Node, Name]) ->
    Peer = list_to_atom(Node),
    Pid = gen_server:call({?MODULE, Peer}, {whereis, list_to_atom(Name)}),
    By_name = monitor(process, {list_to_atom(Name), Peer}),
    By_pid = monitor(process, Pid),
    pong = net_adm:ping(Peer),
    say("under_way ~s", [get(id)]),
    Reason = receive {'DOWN', By_name, process, {_, Peer}, Told} -> Told end,
    receive {'DOWN', By_pid, process, Pid, Reason} -> ok end,
    io_lib:format("~0p", [Reason]);
%% Waits for the end of a process that it is linked to.
command(watch_linked, [Node, Name]) ->
    Peer = list_to_atom(Node),
    Pid = gen_server:call({?MODULE, Peer}, {whereis, list_to_atom(Name)}),
    process_flag(trap_exit, true),
    link(Pid),
    pong = net_adm:ping(Peer),
    say("under_way ~s", [get(id)]),
    receive {'EXIT', Pid, Reason} -> io_lib:format("~0p", [Reason]) end;
%% Takes a link down again, then ends: the other process must not hear of it. Then links anew, and ends.
command(die_linked, [Node, Name]) ->
    Peer = list_to_atom(Node),
    Pid = gen_server:call({?MODULE, Peer}, {whereis, list_to_atom(Name)}),
    {_, Ref1} = spawn_monitor(fun() -> link(Pid), unlink(Pid), exit(unheard) end),
    receive {'DOWN', Ref1, _, _, unheard} -> ok end,
    {_, Ref2} = spawn_monitor(fun() -> link(Pid), exit(heard) end),
    receive {'DOWN', Ref2, _, _, heard} -> "died" end;
command(exit, [Node, Name, Reason]) ->
    Pid = gen_server:call({?MODULE, list_to_atom(Node)}, {whereis, list_to_atom(Name)}),
    atom_to_list(exit(Pid, list_to_atom(Reason)));
%% What becomes of a process that is to be spawned elsewhere.
command(spawn_at, [Node]) ->
    Request = spawn_request(list_to_atom(Node), erlang, node, [], []),
    receive {spawn_reply, Request, error, Reason} -> atom_to_list(Reason) end.

spin_until(Time) ->
    case Time - os:system_time(microsecond) of
        Left when Left > 3000 -> timer:sleep((Left - 2000) div 1000), spin_until(Time);
        Left when Left > 0 -> spin_until(Time);
        _ -> ok
    end.

keep(Peer) ->
    net_kernel:connect_node(Peer),
    timer:sleep(500),
    keep(Peer).

%% Sends random bytes as one message, has the peer hash what it got and send it back, compares both.
bulk(Node, Size, Seed) ->
    {Bytes, _} = rand:bytes_s(Size, rand:seed_s(exsss, Seed)),
    Hash = erlang:md5(Bytes),
    say("under_way ~s", [get(id)]),
    Started = erlang:monotonic_time(millisecond),
    {Node, PeerHash, Back} = gen_server:call({?MODULE, Node}, {echo, Bytes}, infinity),
    Took = erlang:monotonic_time(millisecond) - Started,
    {peer_hash, Hash} = {peer_hash, PeerHash},
    {size, Size} = {size, byte_size(Back)},
    {echo_equal, true} = {echo_equal, Back =:= Bytes},
    io_lib:format("~b ~b", [Size, Took]).

%% One call after another, each answer checked; the round-trip times are returned in microseconds.
calls(Node, Count) ->
    Times = lists:sort([timed_call(Node, I) || I <- lists:seq(1, Count)]),
    At = fun(Share) -> lists:nth(max(1, round(Count * Share)), Times) end,
    io_lib:format("~b ~b ~b ~b", [Count, At(0.5), At(0.99), lists:last(Times)]).

timed_call(Node, I) ->
    Padding = binary:copy(<<I:16>>, I rem 200),
    Started = erlang:monotonic_time(microsecond),
    {Node, Square, Padding} = gen_server:call({?MODULE, Node}, {square, I, Padding}, 30000),
    Took = erlang:monotonic_time(microsecond) - Started,
    Square = I * I,
    Took.

%% The server the peer calls ----------------------------------------------------------------------------------

init([]) -> {ok, none}.

handle_call({square, I, Padding}, _From, State) ->
    {reply, {node(), I * I, Padding}, State};
handle_call({whereis, Name}, _From, State) ->
    {reply, whereis(Name), State};
handle_call({echo, Bytes}, _From, State) ->
    {reply, {node(), erlang:md5(Bytes), Bytes}, State}.

handle_cast(_, State) -> {noreply, State}.

handle_info(_, State) -> {noreply, State}.

%% Events -----------------------------------------------------------------------------------------------------

watch(Parent) ->
    ok = net_kernel:monitor_nodes(true, [nodedown_reason, {node_type, all}]),
    Parent ! watching,
    watch().

watch() ->
    receive
        {nodeup, Node, _} -> say("event up ~s", [Node]);
        {nodedown, Node, Info} -> say("event down ~s ~0p", [Node, proplists:get_value(nodedown_reason, Info)])
    end,
    watch().

say(Format, Arguments) ->
    io:put_chars(["#macula ", io_lib:format(Format, Arguments), $\n]).
