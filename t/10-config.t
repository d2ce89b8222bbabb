#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What the configuration may say, and what it is told when it says something else.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Directives;

my @event = (lanes => ['event']);
my $B = 'http://127.0.0.1:1/';

sub accepted { my ($t, @lines) = @_; return accepted_in($t, 'config', @lines) }

# httpd must name the last line, or the one that matches.
sub refused {
    my ($t, $lines, $message, $at) = @_;
    my @lines = ref $lines ? @$lines : $lines;
    return refused_in($t, 'config', \@lines, $message, $at // qr/^\Q$lines[-1]\E$/);
}

sub in_location { return ['<Location /app>', @_, '</Location>'] }

behaviour 'RProxyPass is taken where it may stand', @event, sub {
    my ($t) = @_;
    accepted($t, "RProxyPass / $B");
    accepted($t, "RProxyPass /a $B", 'RProxyPass /a/b !');
    accepted($t, "RProxyPass / unix:/run/app.sock|http://app/");
    accepted($t, "RProxyPass / https://[::1]:8443/base");
    accepted($t, "RProxyPass / $B if=true", "RProxyPass / ${B}x");
    accepted($t, qq{RProxyPass / $B if="%{REQUEST_METHOD} == 'GET'" weight=2});
    accepted($t, qq{RProxyPass / $B "if=%{REQUEST_METHOD} == 'GET'"});
    accepted($t, "RProxyPass / $B weight=1", "RProxyPass / http://127.0.0.1:2/ weight=3");
    accepted($t, "RProxyPassMatch ^/u/(.*)\$ http://127.0.0.1:1/\$1");
    accepted($t, @{ in_location("RProxyPass $B") });
    accepted($t, @{ in_location('RProxyPass !') });
    accepted($t, '<Location "/a b">', "RProxyPass $B", '</Location>');
    accepted($t, '<LocationMatch "^/v(\d+)/">', 'RProxyPass http://127.0.0.1:1/$1',
        '</LocationMatch>');
    accepted($t, '<Location ~ "^/v\d+/">', "RProxyPass $B", '</Location>');
    accepted($t, '<If "-n %{QUERY_STRING}">', "RProxyPass $B", '</If>');
    accepted($t, @{ in_location('<If "-n %{QUERY_STRING}">', 'RProxyPass !', '</If>') });
    accepted($t, '<Directory /srv/www>', "RProxyPass $B", '</Directory>');
    accepted($t, '<Directory /srv/*>', "RProxyPass /x $B", '</Directory>');
};

behaviour 'what is wrong in a rule is refused', @event, sub {
    my ($t) = @_;
    refused($t, 'RProxyPass /', qr/needs a path and a target/);
    refused($t, "RProxyPass app $B", qr/must begin with '\/'/);
    refused($t, 'RProxyPass / ftp://host/', qr/ftp/);
    refused($t, 'RProxyPass / http://user@host/', qr/user|\@/);
    refused($t, 'RProxyPass / http://127.0.0.1:99999/', qr/99999|port/);
    refused($t, "RProxyPass / $B timeout=3",
        qr/unknown key "timeout=3"; known are if=EXPR and weight=N/);
    refused($t, "RProxyPass / $B weight=1 weight=2", qr/weight= stands twice/);
    refused($t, "RProxyPass / $B weight=many", qr/whole number/);
    refused($t, "RProxyPass / $B if=((", qr/if="\(\(" can't be read: .*; write a condition/);
    refused($t, 'RProxyPass / http://127.0.0.1:1/$1', qr/RProxyPassMatch/);
    refused($t, 'RProxyPassMatch ^/(.*)$ http://$1/', qr/never chooses scheme, host/);
    refused($t, 'RProxyPassMatch ^/(.*$ http://h/', qr/doesn't compile/);
    refused($t, 'RProxyPassMatch ^/x', qr/needs a regular expression and a target/);
    refused($t, 'RProxyPass / balancer://pool/',
        qr/there is no pool of this name here; write <RProxyBalancer pool>/);
};

behaviour 'rules that contradict each other are refused, naming both', @event, sub {
    my ($t) = @_;
    refused($t, ["RProxyPass /a $B", 'RProxyPass /a/ http://127.0.0.1:2/'],
        qr/RP0301: .*add if= or weight= to both.*httpd\.conf:\d+/s);
    refused($t, ["RProxyPass /a $B", "RProxyPass /a $B if=true"], qr/could never take effect/);
    refused($t, ["RProxyPass /app $B", @{ in_location('RProxyPass http://127.0.0.1:2/') }],
        qr/RP0301: .*sent to/, qr/^RProxyPass http:/);
    refused($t, ["RProxyPass / $B weight=0"], qr/sum to 0/);
    $t->clear_config;
    $t->server_config("RProxyPass /a $B", 'RProxyPass /a http://127.0.0.1:2/');
    my ($code, $output) = $t->httpd_test;
    isnt($code, 0, 'in the main server, too');
    like($output, qr/RP0301/);
};

behaviour 'a virtual host replaces a rule of the main server without a contradiction', @event, sub {
    my ($t) = @_;
    $t->server_config("RProxyPass /a $B");
    $t->config('RProxyPass /a http://127.0.0.1:2/');
    my ($code) = $t->httpd_test;
    is($code, 0);
};

behaviour 'RProxyPass is refused where it could not take effect', @event, sub {
    my ($t) = @_;
    refused($t, in_location("RProxyPass /x $B"), qr/takes the path of that section/,
        qr/^RProxyPass/);
    refused($t, in_location('RProxyPass'), qr/needs a target/, qr/^RProxyPass/);
    refused($t, ['<Location /a/*>', "RProxyPass $B", '</Location>'], qr/LocationMatch/,
        qr/^RProxyPass/);
    refused($t, ['<Location http://a/>', "RProxyPass $B", '</Location>'], qr/must begin with '\/'/,
        qr/^RProxyPass/);
    refused($t, in_location('<If true>', "RProxyPass /x $B", '</If>'),
        qr/takes the path of the section around it/, qr/^RProxyPass/);
    refused($t, ['<If true>', "RProxyPass $B weight=2", '</If>'],
        qr/<If> takes no|<If true> takes no/,
        qr/^RProxyPass/);
    refused($t, ['<If true>', "RProxyPass $B if=true", '</If>'], qr/a <If "EXPR"> of its own/,
        qr/^RProxyPass/);
    refused($t, ['<If true>', "RProxyPass $B", 'RProxyPass !', '</If>'],
        qr/stands twice in one section/,
        qr/^RProxyPass \Q$B\E/);
    refused($t, ['<Directory /srv/*>', "RProxyPass $B", '</Directory>'], qr/can't know its path/,
        qr/^RProxyPass/);
    refused($t, ['<DirectoryMatch ^/srv>', "RProxyPass $B", '</DirectoryMatch>'],
        qr/can't know its path/, qr/^RProxyPass/);
    refused($t, ['<If true>', 'RProxyPass balancer://x/', '</If>'],
        qr/there is no pool of this name/, qr/^RProxyPass/);
    refused($t, in_location("RProxyPassMatch ^/x $B"), qr/holds for a whole server/,
        qr/^RProxyPassM/);
    refused($t, in_location('<Limit GET>', "RProxyPass $B", '</Limit>'),
        qr/could not take effect in <Limit>/, qr/^RProxyPass/);
    refused($t, in_location('<LimitExcept GET>', 'RProxyTimeout idle=3s', '</LimitExcept>'),
        qr/could not take effect in <LimitExcept>/, qr/^RProxyTimeout/);
};

behaviour 'settings are refused inside of <Proxy>, which is not ours', @event, sub {
    my ($t) = @_;
    $t->extra_modules('proxy');
    refused($t, ['<Proxy *>', 'RProxyTimeout idle=3s', '</Proxy>'], qr/that section is mod_proxy's/,
        qr/^RProxyTimeout/);
};

behaviour 'RProxyTimeout', @event, sub {
    my ($t) = @_;
    accepted($t, 'RProxyTimeout connect=1 first-byte=250ms idle=2min total=1h tunnel=1d drain=0');
    accepted($t, 'RProxyTimeout idle=2m connect=3mi');
    refused($t, 'RProxyTimeout', qr/needs at least one time/);
    refused($t, 'RProxyTimeout 5s',
        qr/no key=value; known keys are connect=, .*tunnel= and drain=/);
    refused($t, 'RProxyTimeout conect=5s', qr/unknown key "conect=5s"; known are connect=/);
    refused($t, 'RProxyTimeout idle=', qr/idle= needs a value/);
    refused($t, 'RProxyTimeout idle=1s idle=2s', qr/idle= stands twice/);
    refused($t, "RProxyTimeout idle=$_", qr/write a time/) for qw(-1 s 5us 5x 1.5s);
    refused($t, "RProxyTimeout idle=$_", qr/at most 3650 days/) for qw(3651d 99999999999999999999s);
    refused($t, 'RProxyTimeout total=5s idle=1min',
        qr/idle=1min could never take effect, total=5s is over before/);
    refused($t, ['RProxyTimeout idle=1s', 'RProxyTimeout connect=1s'],
        qr/RProxyTimeout stands twice in one section: here \(.*:\d+\) and at .*:\d+; keep one/,
        qr/^RProxyTimeout idle/);
    accepted($t, 'RProxyTimeout idle=1s', @{ in_location('RProxyTimeout idle=2s') });
};

behaviour 'RProxyRetry', @event, sub {
    my ($t) = @_;
    accepted($t, 'RProxyRetry tries=3 on=error,timeout,502,503,504 methods=all');
    accepted($t, 'RProxyRetry on=off');
    accepted($t, 'RProxyRetry tries=1');
    refused($t, 'RProxyRetry', qr/needs at least one key/);
    refused($t, "RProxyRetry tries=$_", qr/whole number from 1 to 10/) for qw(0 11 x);
    refused($t, 'RProxyRetry on=error,eror', qr/"eror" is none of error, timeout/);
    refused($t, "RProxyRetry on=$_", qr/status codes 400 to 599/) for qw(200 600 50);
    refused($t, 'RProxyRetry on=503,503', qr/503 stands twice/);
    refused($t, 'RProxyRetry on=error,error', qr/error stands twice/);
    refused($t, 'RProxyRetry on=error,off', qr/off alone switches retries off/);
    refused($t, 'RProxyRetry on=' . join(',', 500 .. 508), qr/at most 8 status codes/);
    refused($t, 'RProxyRetry methods=some', qr/methods=idempotent or methods=all/);
    refused($t, 'RProxyRetry on=off tries=3', qr/no other key could take effect/);
    refused($t, 'RProxyRetry tries=1 on=error', qr/tries=1 never repeats/);
};

behaviour 'RProxyKeepAlive', @event, sub {
    my ($t) = @_;
    accepted($t, 'RProxyKeepAlive max=128 idle=5s requests=1000 age=1h');
    accepted($t, 'RProxyKeepAlive max=0');
    refused($t, 'RProxyKeepAlive', qr/needs at least one key/);
    refused($t, 'RProxyKeepAlive max=-1', qr/whole number from 0 to 65536/);
    refused($t, 'RProxyKeepAlive max=0 idle=5s', qr/max=0 keeps no connection/);
    refused($t, 'RProxyKeepAlive ttl=5s', qr/known are max=, idle=, requests= and age=/);
};

behaviour 'settings of one word', @event, sub {
    my ($t) = @_;
    accepted($t, "RProxyForwarded $_") for qw(x rfc7239 both off);
    accepted($t, "RProxyUpgrade $_") for qw(websocket any off);
    accepted($t, "RProxyEncodedSlashes $_") for qw(pass decode reject);
    accepted($t, 'RProxyPreserveHost off', 'RProxyIgnoreClientAbort on');
    refused($t, 'RProxyForwarded yes', qr/write x, rfc7239, both or off/);
    refused($t, 'RProxyUpgrade on', qr/write websocket, any or off/);
    refused($t, 'RProxyEncodedSlashes on', qr/write pass, decode or reject/);
    refused($t, 'RProxyPreserveHost maybe', qr/On or Off/);
    refused($t, ["RProxyPreserveHost on", 'RProxyPreserveHost off'], qr/stands twice/,
        qr/^RProxyPreserveHost on/);
    refused($t, in_location('RProxyEncodedSlashes pass'), qr/holds for a whole server/,
        qr/^RProxyEnc/);
};

behaviour 'RProxyErrorOverride', @event, sub {
    my ($t) = @_;
    accepted($t, "RProxyErrorOverride $_") for 'on', 'off', '404 502';
    refused($t, 'RProxyErrorOverride', qr/needs on, off, or status codes/);
    refused($t, "RProxyErrorOverride $_", qr/status codes from 400 to 599/) for qw(302 600 4O4);
    refused($t, "RProxyErrorOverride $_", qr/stands alone/) for 'on 404', '404 off';
    refused($t, 'RProxyErrorOverride 404 404', qr/404 stands twice/);
};

behaviour 'rules on paths, addresses and cookies', @event, sub {
    my ($t) = @_;
    accepted($t, 'RProxyRewrite ^/a/(.*)$ /b/$1 [NC,L]', 'RProxyRewrite ^/c$ /d');
    accepted($t, 'RProxyReverse http://inner:8080/app /app', 'RProxyReverse /x https://w.test/x');
    accepted($t, 'RProxyCookieDomain inner.test www.test', 'RProxyCookiePath /app /');
    refused($t, 'RProxyRewrite ^/( /b', qr/doesn't compile/);
    refused($t, 'RProxyRewrite ^/a http://other/', qr/must begin with '\/'/);
    refused($t, 'RProxyRewrite ^/a /b [R]', qr/unknown flag "R"/);
    refused($t, 'RProxyReverse app /app', qr/RProxyReverse "app": write a path/);
    refused($t, 'RProxyCookiePath app /', qr/RProxyCookiePath "app": write a path/);
    refused($t, 'RProxyCookieDomain a/b c', qr/RProxyCookieDomain "a\/b": write a host name/);
    refused($t, ['RProxyReverse /a /b', 'RProxyReverse /a /c'], qr/could never take effect/);
};

behaviour 'settings of a server', @event, sub {
    my ($t) = @_;
    accepted($t, 'RProxyTrustedProxy 10.0.0.0/8 192.0.2.1 2001:db8::/32');
    accepted($t, "RProxyAllowTarget $B https://app.test/x");
    refused($t, 'RProxyTrustedProxy proxy.example.com', qr/names are not resolved/);
    refused($t, 'RProxyTrustedProxy 10.0.0.0/33', qr/write an address or a network/);
    refused($t, 'RProxyAllowTarget 127.0.0.1', qr/127\.0\.0\.1/);
    refused($t, in_location("RProxyAllowTarget $B"), qr/holds for a whole server/,
        qr/^RProxyAllow/);
    refused($t, 'RProxyResolver 127.0.0.1', qr/serves all virtual hosts/);
    for my $good ('127.0.0.1', '127.0.0.1:5353 ::1', '[::1]:53 min-ttl=5s max-ttl=1h timeout=2s') {
        $t->clear_config;
        $t->server_config("RProxyResolver $good");
        my ($code, $output) = $t->httpd_test;
        is($code, 0, "RProxyResolver $good") or diag($output);
    }
    for my $bad (['', qr/needs addresses/], ['dns.test', qr/the IP address of a name server/],
        ['127.0.0.1:0', qr/from 1 to 65535/], ['[::1]x', qr/port behind a colon/],
        ['[127.0.0.1]', qr/the IP address/], ['min-ttl=0', qr/a time above 0/],
        ['min-ttl=2h', qr/min-ttl=2h is above max-ttl=1h/]) {
        $t->clear_config;
        $t->server_config("RProxyResolver $bad->[0]");
        my ($code, $output) = $t->httpd_test;
        isnt($code, 0, "RProxyResolver $bad->[0]");
        like($output, $bad->[1]);
    }
};

behaviour 'RProxyTLS is checked with its files before the start', @event, sub {
    my ($t) = @_;
    my $ca = $t->certs->ca_file;
    my $pair = $t->certs->server(['client.test']);
    accepted($t, qq{RProxyTLS ca="$ca" name=app.test});
    accepted($t, "RProxyTLS cert=$pair->{cert} key=$pair->{key}");
    refused($t, 'RProxyTLS', qr/needs at least one key/);
    refused($t, 'RProxyTLS verify=maybe', qr/verify/);
    refused($t, 'RProxyTLS ca=/nowhere/ca.pem', qr{/nowhere/ca\.pem});
    refused($t, 'RProxyTLS ciper=x', qr/ciper/);
    refused($t, ['RProxyTLS verify=off', 'RProxyTLS name=x'], qr/stands twice/,
        qr/^RProxyTLS verify/);
};

behaviour 'what is refused in httpd -t stops a start, too', @event, sub {
    my ($t) = @_;
    $t->config("RProxyPass /a $B", 'RProxyPass /a http://127.0.0.1:2/');
    ok(!eval { $t->start; 1 }, 'no start');
    like($@, qr/RP0301/, 'with the reason');
};

# ---- .htaccess ------------------------------------------------------------------------------

sub with_htaccess {
    my ($t, $text) = @_;
    $t->file('htdocs/site/.htaccess', $text);
    $t->file('htdocs/site/index.html', "page\n");
    return $t->get('/site/index.html');
}

behaviour 'a .htaccess file may set what is the site owner\'s, and nothing else', @event, sub {
    my ($t) = @_;
    $t->config("RProxyAllowTarget $B");
    $t->start;
    for my $line ('RProxyTimeout idle=3s', 'RProxyRetry on=off', 'RProxyPreserveHost off',
        'RProxyErrorOverride on', 'RProxyUpgrade off', 'RProxyUpgrade websocket',
        'RProxyRewrite ^/a /b', 'RProxyReverse /a /b', 'RProxyCookiePath /a /b',
        'RProxyCookieDomain a.test b.test', 'RProxyPass !') {
        is(with_htaccess($t, "$line\n")->status, 200, $line);
    }
    for my $line ('RProxyForwarded off', 'RProxyTLS verify=off', 'RProxyKeepAlive max=9',
        'RProxyIgnoreClientAbort on', "RProxyAllowTarget $B", 'RProxyTrustedProxy 127.0.0.1',
        'RProxyEncodedSlashes decode', 'RProxyResolver 127.0.0.1', "RProxyPassMatch ^/x $B") {
        my $size = $t->log_size;
        my ($name) = $line =~ /^(\w+)/;
        is(with_htaccess($t, "$line\n")->status, 500, $line);
        like($t->error_log($size), qr/\.htaccess: $name is not for \.htaccess files/);
    }
    my @wrong = (["RProxyPass $B if=true", qr/takes no "if=true".*<If "EXPR">/],
        ["RProxyPass $B\nRProxyPass !", qr/stands twice/], ['RProxyPass', qr/needs a target/],
        ['RProxyUpgrade any', qr/RProxyUpgrade any is not for \.htaccess files/],
        ["RProxyPass /x", qr/needs a target/], ['RProxyTimeout idle=x', qr/write a time/],
        ["<Limit GET>\nRProxyPass $B\n</Limit>", qr/could not take effect in <Limit>/],
        ["<If \"file('/etc/passwd') =~ /root/\">\nRProxyPass !\n</If>",
            qr/restricted|Cannot parse/]);
    for my $case (@wrong) {
        my $size = $t->log_size;
        is(with_htaccess($t, "$case->[0]\n")->status, 500, $case->[0]);
        like($t->error_log($size), $case->[1]);
    }
};

# ---- the startup notice ---------------------------------------------------------------------

behaviour 'a notice tells how many connections a child takes', @event, sub {
    my ($t) = @_;
    $t->mpm_config(AsyncRequestWorkerFactor => 3);
    $t->config("RProxyPass / $B");
    $t->start;
    my @notices = $t->error_log =~ /(RP0302: .*)/g;
    is(@notices, 1, 'once');
    like($notices[0], qr/16 \+ 3 x 16 = 64 .*set AsyncRequestWorkerFactor 62 .*1000/);
};

behaviour 'the notice has no advice where a child takes enough', @event, sub {
    my ($t) = @_;
    $t->config("RProxyPass / $B");
    $t->start;
    like($t->error_log, qr/RP0302: .*16 \+ 200 x 16 = 3216 while all are idle$/m);
};

behaviour 'no notice without a rule, or where requests are not parked', lanes => ['event',
    'prefork'],
    sub {
    my ($t) = @_;
    $t->config("RProxyPass / $B") if $t->lane eq 'prefork';
    $t->start;
    unlike($t->error_log, qr/RP0302/);
};

done_testing;
