//! A property list for launchd.
//!
//! A daemon of the machine, not an agent: it starts without a login. Only the
//! template is musher's part of macOS so far.

use super::{Facts, Plan, argv};

/// Returns the plan.
pub(super) fn plan(facts: &Facts) -> Plan {
    let path = format!("/Library/LaunchDaemons/{}.plist", facts.service);
    Plan {
        text: property_list(facts),
        mode: 0o644,
        enable: vec![argv(&["launchctl", "load", "-w", &path])],
        disable: vec![argv(&["launchctl", "unload", "-w", &path])],
        forget: Vec::new(),
        path: path.into(),
    }
}

fn property_list(facts: &Facts) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>{service}</string>
	<key>UserName</key>
	<string>{user}</string>
	<key>ProgramArguments</key>
	<array>
		<string>{exe}</string>
		<string>boot</string>
		<string>--home</string>
		<string>{home}</string>
	</array>
	<key>EnvironmentVariables</key>
	<dict>
		<key>PATH</key>
		<string>{path}</string>
		<key>MUSHER_HOME</key>
		<string>{home}</string>
	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ExitTimeOut</key>
	<integer>{stop}</integer>
</dict>
</plist>
"#,
        service = escaped(&facts.service),
        user = escaped(&facts.user),
        exe = escaped(&facts.exe),
        home = escaped(&facts.home),
        path = escaped(&facts.path),
        stop = facts.stop_secs(),
    )
}

/// Returns a text without markup (XML 1.0, 2.4).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
